//! How to fix a finding on this host: the check's words, and the exact commands of its OS.

use super::{Question, Resolver};
use crate::catalog::check::Check;
use crate::facts::Value;
use crate::facts::registry::{self, Scope};
use crate::report::model::{Finding, Outcome, Remedy};

/// Where a setting made by hand is kept: a file of its own, so that saying it twice leaves one line. Sorts after what
/// distributions use and before preflight's own `99-zz-preflight.conf`.
fn drop_in(name: &str) -> String {
    format!("/etc/sysctl.d/99-z-{name}.conf")
}

pub(super) fn remedy(check: &Check, question: &Question<'_>, finding: &Finding, resolver: &Resolver<'_>) -> Remedy {
    let commands = if finding.result == Outcome::Unknown {
        Vec::new()
    } else {
        let named = question.remedy.and_then(|name| resolver.os.remedies.get(name));
        let named =
            named.map(|commands| tuned_first(finding, commands).into_iter().chain(commands.iter().cloned()).collect());
        named.or_else(|| setting(check, finding, resolver)).unwrap_or_default()
    };
    Remedy { text: question.fix.to_owned(), commands, impact: check.impact.clone() }
}

/// tuned applies its settings after the boot files: commands that only write such a file would change nothing for long.
fn tuned_first(finding: &Finding, commands: &[String]) -> Option<String> {
    let boot = finding.boot.as_ref().filter(|boot| boot.decides && boot.result != Outcome::Pass)?;
    let is_tuneds = ["/etc/tuned/", "/usr/lib/tuned/"].iter().any(|folder| boot.source.starts_with(folder));
    let knows_it = commands.iter().any(|command| command.starts_with("tuned-adm "));
    (is_tuneds && !knows_it).then(|| {
        format!("# tuned sets it at each start ({}): set it in a profile of tuned, or stop tuned", boot.source)
    })
}

/// The commands that bring a kernel setting to its target on the layer that decides.
fn setting(check: &Check, finding: &Finding, resolver: &Resolver<'_>) -> Option<Vec<String>> {
    let name = check.fact.strip_prefix("sysctl.")?;
    let target = resolver.literal(&check.tune.as_ref()?.to).ok()?;
    let text = match &*target {
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
        commands.push(format!("sysctl -w {}", quoted(&format!("{name}={text}"))));
    }
    let drop_in = drop_in(name);
    let winner = finding.boot.as_ref().filter(|boot| boot.decides && boot.result != Outcome::Pass);
    let winner = winner.map(|boot| boot.source.as_str()).filter(|source| source.starts_with('/'));
    if let Some(winner) = winner {
        commands.push(format!("# {winner} sets it at boot: change it there"));
    }
    if winner.is_none_or(|winner| is_applied_before(winner, &drop_in)) {
        commands.push(format!("echo {} > {}", quoted(&format!("{name} = {text}")), quoted(&drop_in)));
    }
    Some(commands)
}

/// Whether what `source` (`/etc/sysctl.d/50-x.conf:3`) sets is set again by the drop-in. What is not in a sysctl.d
/// (tuned, the kernel's command line, a sysctl.conf that is read last) has the last word.
fn is_applied_before(source: &str, drop_in: &str) -> bool {
    let file = source.rsplit_once(':').map_or(source, |(file, _)| file);
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    file.contains("/sysctl.d/") && name(file) < name(drop_in)
}

/// One word of a POSIX shell. Names and values may come from a profile of another user; the words are pasted into a root shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/=:,@%+-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_profile_cannot_leave_their_quotes() {
        assert_eq!(quoted("vm.overcommit_memory=1"), "vm.overcommit_memory=1");
        assert_eq!(quoted("x = 1'; reboot; '"), r"'x = 1'\''; reboot; '\'''");
    }

    #[test]
    fn whatever_is_applied_after_the_drop_in_has_the_last_word() {
        let drop_in = drop_in("vm.overcommit_memory");
        for (source, before) in [
            ("/etc/sysctl.d/50-redis.conf:1", true),
            ("/etc/sysctl.d/99-sysctl.conf:7", true),
            ("/etc/sysctl.d/99-zz.conf:1", false),
            ("/usr/lib/sysctl.d/zz.conf:1", false),
            ("/etc/sysctl.conf:3", false),
            ("/usr/lib/tuned/x/tuned.conf:4", false),
            ("/proc/cmdline", false),
        ] {
            assert_eq!(is_applied_before(source, &drop_in), before, "{source}");
        }
    }
}
