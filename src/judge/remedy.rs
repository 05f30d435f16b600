//! How to mend a finding on this host: the check's words, and the exact commands of its OS.

use super::Resolver;
use crate::catalog::check::Check;
use crate::facts::Value;
use crate::facts::registry::{self, Scope};
use crate::report::model::{Finding, Outcome, Remedy};

/// Where a setting made by hand is kept: a file of its own, so that saying it twice leaves one line. Sorts after what
/// distributions use and before preflight's own `99-zz-preflight.conf`.
fn drop_in(name: &str) -> String {
    format!("/etc/sysctl.d/99-z-{name}.conf")
}

pub(super) fn remedy(check: &Check, recipe: Option<&str>, finding: &Finding, resolver: &Resolver<'_>) -> Remedy {
    let commands = if finding.result == Outcome::Unknown {
        Vec::new()
    } else {
        let named = recipe.and_then(|name| resolver.os.remedies.get(name)).cloned();
        named.or_else(|| setting(check, finding, resolver)).unwrap_or_default()
    };
    Remedy { text: check.fix.clone(), commands, impact: check.impact.clone() }
}

/// The commands that bring a kernel setting to its target on the layer that decides.
fn setting(check: &Check, finding: &Finding, resolver: &Resolver<'_>) -> Option<Vec<String>> {
    let name = check.fact.strip_prefix("sysctl.")?;
    let target = resolver.literal(&check.tune.as_ref()?.to).ok()?;
    let text = match &target {
        Value::Set(words) => words.iter().cloned().collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    let in_container = registry::scope(&check.fact) == Scope::Network
        && finding.container.as_ref().is_some_and(|container| container.decides);
    if in_container {
        return Some(vec![
            "# in the Compose file, for every Redis and Sentinel service:".to_owned(),
            "sysctls:".to_owned(),
            format!("  {name}: {text}"),
        ]);
    }
    let mut commands = Vec::new();
    if finding.live.as_ref().is_some_and(|live| live.decides && live.result != Outcome::Pass) {
        commands.push(format!("sysctl -w '{name}={text}'"));
    }
    commands.push(format!("echo '{name} = {text}' > {}", drop_in(name)));
    Some(commands)
}
