//! What the next boot will really bring, asked of the files themselves: before a plan, with our file as it would be, and
//! after it, with the files as they are.

use std::cell::RefCell;
use std::mem;

use crate::apply::journal::Step;
use crate::apply::{BootTruth, Overridden, StaleProcess, UnknownAtBoot};
use crate::catalog::os::OsProfile;
use crate::catalog::parameters::Parameters;
use crate::facts::{Facts, Layer, State};
use crate::host::{Host, ReadError};
use crate::subjects::context::{Context, Want};
use crate::subjects::kernel::sysctl::boot::Sources;
use crate::subjects::kernel::{sysctl, thp};
use crate::subjects::limits::service;

use super::behind;
use crate::change::files;
use crate::change::target::Target;
use crate::subjects::firewall::drift as guarded;

/// The next boot with a drop-in of ours that is not written yet.
#[derive(Debug)]
pub struct Rehearsal<'a> {
    pub os: &'a OsProfile,
    host: &'a Host,
    known: RefCell<Known>,
}

/// What the host has.
#[derive(Debug)]
enum Known {
    /// As the probes read it, if they did. A plan goes on from there: read once more, it might be another.
    Gathered(Option<Result<Sources, ReadError>>),
    /// The text of ours that was asked about, and all sources with it; none where they cannot be read.
    With(String, Option<Sources>),
}

impl<'a> Rehearsal<'a> {
    pub fn new(host: &'a Host, os: &'a OsProfile, gathered: Option<Result<Sources, ReadError>>) -> Self {
        Self { os, host, known: RefCell::new(Known::Gathered(gathered)) }
    }

    /// Whether our drop-in with this text would decide a setting; if not, the value then and who gives it.
    pub fn would_lose(&self, text: &str, name: &str) -> Option<(String, String)> {
        let mut known = self.known.borrow_mut();
        if !matches!(&*known, Known::With(asked, _) if asked == text) {
            let sources = match mem::replace(&mut *known, Known::Gathered(None)) {
                Known::Gathered(Some(read)) => read.ok(),
                Known::Gathered(None) => self.read().ok(),
                // A text of ours takes the place of the one before it.
                Known::With(_, sources) => sources,
            };
            let sources = sources.map(|sources| sysctl::with_file(sources, files::SYSCTL, text));
            *known = Known::With(text.to_owned(), sources);
        }
        let Known::With(_, Some(sources)) = &*known else { return None };
        let fact = sysctl::boot::decide(sources, name, None);
        match &fact.state {
            State::Known(value) if !fact.source.starts_with(files::SYSCTL) => {
                let ours = files::parse_sysctl(text).remove(name)?.value;
                let found = value.to_string();
                (found != ours).then_some((found, fact.source.clone()))
            }
            _ => None,
        }
    }

    fn read(&self) -> Result<Sources, ReadError> {
        sysctl::sources(self.host, sysctl::loader(self.host, self.os.sysctl_loader))
    }
}

/// The boot layer of a host, computed over all files that it reads.
#[derive(Debug)]
pub struct HostTruth<'a> {
    pub host: &'a Host,
    pub os: &'a OsProfile,
}

impl BootTruth for HostTruth<'_> {
    fn overridden(&self, steps: &[&Step]) -> Vec<Result<Overridden, UnknownAtBoot>> {
        let mut expected: Vec<(String, String, String)> = Vec::new();
        for step in steps {
            let target = Target::of(&step.target);
            match target {
                Some(Target::File(files::SYSCTL)) => expected.extend(
                    files::parse_sysctl(&step.after)
                        .into_iter()
                        .map(|(name, line)| (Target::Sysctl(&name).to_string(), format!("sysctl.{name}"), line.value)),
                ),
                Some(Target::File(files::TMPFILES)) => expected.extend(
                    files::parse_tmpfiles(&step.after)
                        .into_iter()
                        .filter(|(file, _)| file == "enabled")
                        .map(|(_, line)| (Target::HUGE_PAGES.to_string(), "thp.enabled".to_owned(), line.value)),
                ),
                Some(Target::File(files::TUNED | files::TUNED_NEW)) => expected.extend(
                    files::parse_tuned(&step.after)
                        .map(|(_, word)| (Target::HUGE_PAGES.to_string(), "thp.enabled".to_owned(), word)),
                ),
                _ => {
                    let service = target.and_then(Target::drop_in_service);
                    let limit = service::assignments(&step.after).last();
                    if let (Some(service), Some((_, limit))) = (service, limit) {
                        let id = format!("limits.service-nofile.{service}");
                        expected.push((Target::Unit(service).to_string(), id, limit.to_string()));
                    }
                }
            }
        }
        let facts = self.facts(expected.iter().map(|(_, id, _)| id.clone()));
        expected
            .into_iter()
            .filter_map(|(target, id, value)| {
                let fact = facts.get(&id, Layer::Boot)?;
                let (found, by) = match &fact.state {
                    State::Known(found) => (found.to_string(), fact.source.clone()),
                    State::Absent(why) => (why.to_string(), fact.source.clone()),
                    State::Unknown { error, .. } => {
                        return Some(Err(UnknownAtBoot { target, expected: value, why: error.clone() }));
                    }
                };
                (found != value).then_some(Ok(Overridden { target, expected: value, found, by }))
            })
            .collect()
    }

    fn behind(&self, step: &Step, since_us: Option<u64>) -> Result<Vec<StaleProcess>, String> {
        behind::behind(self.host, step, since_us, &|unit| {
            let id = format!("limits.service-nofile.{unit}");
            self.facts(std::iter::once(id.clone())).get(&id, Layer::Live).cloned()
        })
    }

    fn outdated(&self, step: &Step) -> Result<Option<Overridden>, String> {
        guarded::outdated(self.host, self.os, step)
    }

    fn suspect(&self, step: &Step) -> Option<String> {
        guarded::suspect(self.host, step)
    }
}

impl HostTruth<'_> {
    fn facts(&self, ids: impl Iterator<Item = String>) -> Facts {
        let mut facts = Facts::default();
        let want = Want::new(ids);
        let parameters = Parameters::default();
        let cx = Context::new(self.host, &want, &parameters, self.os);
        sysctl::probe(&cx, &mut facts);
        thp::probe(&cx, &mut facts);
        service::probe(&cx, &mut facts);
        facts
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::catalog::library::{self, Library};
    use crate::catalog::load;
    use crate::subjects::gather;
    use crate::subjects::gather::Gathered;
    use crate::subjects::planner;

    /// A plan asks for every line of our file, of one reading. Seen failing with the files read for each question.
    #[test]
    fn a_plan_reads_the_boot_files_once() {
        let root = tempfile::tempdir().unwrap();
        let later = root.path().join("etc/sysctl.d/99-zzz.conf");
        std::fs::create_dir_all(later.parent().unwrap()).unwrap();
        std::fs::write(&later, "vm.swappiness = 5\nvm.overcommit_memory = 0\n").unwrap();
        let host = Host::at_root(root.path());
        let os = library::os_profile("debian", &[]);
        let ours = "vm.swappiness = 10\nvm.overcommit_memory = 1\n";
        let lost = |value: &str, line| Some((value.to_owned(), format!("/etc/sysctl.d/99-zzz.conf:{line}")));
        let rehearsal = Rehearsal::new(&host, os, None);
        assert_eq!(rehearsal.would_lose(ours, "vm.swappiness"), lost("5", 1));
        std::fs::remove_file(&later).unwrap();
        assert_eq!(rehearsal.would_lose(ours, "vm.overcommit_memory"), lost("0", 2));
        let another = "vm.overcommit_memory = 2\n";
        assert_eq!(rehearsal.would_lose(another, "vm.overcommit_memory"), lost("0", 2));
        let anew = Rehearsal::new(&host, os, None);
        assert_eq!(anew.would_lose(ours, "vm.swappiness"), None, "another plan looks anew");
    }

    /// Seen failing with `None` handed on for what was gathered: the file was gone by then.
    #[test]
    fn a_plan_goes_on_from_what_the_facts_are_of() {
        let root = tempfile::tempdir().unwrap();
        let later = root.path().join("etc/sysctl.d/99-zzz.conf");
        std::fs::create_dir_all(later.parent().unwrap()).unwrap();
        std::fs::write(&later, "vm.swappiness = 5\n").unwrap();
        let host = Host::at_root(root.path());
        let catalogue = load::load(&Library::default(), "redis-sentinel", &BTreeMap::new(), planner::tuning).unwrap();
        let Gathered { snapshot, boot_sources } = gather::gather(&host, &catalogue, &|_, _| true, false);
        std::fs::remove_file(&later).unwrap();
        let rehearsal = Rehearsal::new(&host, gather::os_of(&snapshot.facts), boot_sources);
        let lost = Some(("5".to_owned(), "/etc/sysctl.d/99-zzz.conf:1".to_owned()));
        assert_eq!(rehearsal.would_lose("vm.swappiness = 10\n", "vm.swappiness"), lost);
        let firewall = gather::gather(&host, &catalogue, &|id, _| id.starts_with("firewall."), false);
        assert!(firewall.boot_sources.is_none(), "nobody asked for a setting");
    }
}
