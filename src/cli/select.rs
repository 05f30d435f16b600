//! `--only` and `--skip`: which findings are wanted.

use super::Stop;
use super::args::ProfileArgs;
use crate::catalog::{Catalogue, diagnostic, glob};
use crate::judge;

/// Which findings are wanted, by globs over finding ids and check ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    only: Vec<String>,
    skip: Vec<String>,
    deep: bool,
}

impl Selection {
    pub(crate) fn new(args: &ProfileArgs, deep: bool) -> Self {
        Self { only: args.only.clone(), skip: args.skip.clone(), deep }
    }

    pub(crate) fn wants(&self, id: &str, check: &str) -> bool {
        let any = |globs: &[String]| globs.iter().any(|glob| glob::matches(glob, id) || glob::matches(glob, check));
        (self.only.is_empty() || any(&self.only)) && !any(&self.skip)
    }

    /// Whether facts that take time to measure are gathered.
    pub(crate) fn deep(&self) -> bool {
        self.deep
    }

    /// A glob that matches nothing is a typing mistake, and a selection that leaves nothing would be green by accident.
    pub(crate) fn validate(&self, catalogue: &Catalogue) -> Result<(), Stop> {
        if self.only.is_empty() && self.skip.is_empty() {
            let mut instances = catalogue.checks.iter().map(|check| judge::instances(check, &catalogue.parameters));
            if instances.any(|mut instances| instances.next().is_some()) {
                return Ok(());
            }
            return Err(Stop::usage("nothing is left to check: the lists of the profile's checks are empty"));
        }
        let ids: Vec<(String, &str)> = catalogue
            .checks
            .iter()
            .flat_map(|check| {
                judge::instances(check, &catalogue.parameters)
                    .map(|instance| (judge::finding_id(check, instance.name.as_deref()), &*check.id))
            })
            .collect();
        for (flag, globs) in [("--only", &self.only), ("--skip", &self.skip)] {
            for glob in globs {
                if !ids.iter().any(|(id, check)| glob::matches(glob, id) || glob::matches(glob, check)) {
                    let near = diagnostic::suggest(glob, ids.iter().map(|(id, _)| id.as_str()));
                    let hint = near.map_or_else(
                        || "`preflight list checks` shows all ids".to_owned(),
                        |near| format!("did you mean `{near}`?"),
                    );
                    return Err(Stop::usage(format!("{flag} {glob} matches no finding of the profile\nhint: {hint}")));
                }
            }
        }
        if !ids.iter().any(|(id, check)| self.wants(id, check)) {
            return Err(Stop::usage("nothing is left to check: --only and --skip leave out every finding"));
        }
        Ok(())
    }
}
