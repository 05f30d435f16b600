//! A plan as a script that does the same: each subject knows the commands for its own targets.

use std::io::{self, Write};

use super::{firewall, kernel};
use crate::change::render::{Head, unfinished_words, word_for};
use crate::change::shell::quote;
use crate::change::target::Target;
use crate::change::{Change, Plan};
use crate::report::escape;

/// A readable POSIX script that does what the plan does, without the journal, the confirm and the way back.
pub fn script(plan: &Plan, head: &Head<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "#!/bin/sh")?;
    writeln!(
        out,
        "# What `preflight tune --apply` would do for {} on {}.",
        escape::text(head.profile),
        escape::text(head.host)
    )?;
    writeln!(out, "# It cannot take itself back: preflight keeps a journal for that.")?;
    for unfinished in &plan.unfinished {
        writeln!(out, "#\n# UNFINISHED: {}", escape::text(&unfinished_words(unfinished)))?;
        writeln!(out, "# {}", escape::text(&unfinished.next))?;
    }
    writeln!(out, "set -eu")?;
    for change in &plan.changes {
        write!(out, "\n# {} ({})", escape::text(&change.id), change.layer.name())?;
        if let Some(commands) = on_disk(change) {
            write!(out, "\n{commands}")?;
            continue;
        }
        writeln!(out, ": was {}", escape::text(word_for(change.before.as_deref())))?;
        if let Some(commands) = SUBJECTS.iter().find_map(|commands| commands(change)) {
            out.write_all(commands.as_bytes())?;
        }
    }
    for manual in &plan.manual {
        writeln!(out, "\n# left to you: {}: {}", escape::text(&manual.id), escape::text(&manual.reason))?;
        for line in manual.text.lines() {
            writeln!(out, "#   {}", escape::text(line))?;
        }
    }
    Ok(())
}

/// The subjects that change a running host.
const SUBJECTS: [fn(&Change) -> Option<String>; 2] = [kernel::script::commands, firewall::script::commands];

/// A file or a link, which is made the same way for every subject.
fn on_disk(change: &Change) -> Option<String> {
    match Target::of(&change.target)? {
        Target::File(path) => {
            let mode = if path.starts_with("/etc/init.d/") { "0755" } else { "0644" };
            let (folder, path, text) = (quote(parent(path)), quote(path), escape::lines(&change.after));
            let write = format!("cat > {path} <<'PREFLIGHT'\n{text}PREFLIGHT\nchmod {mode} {path}\n");
            Some(format!("mkdir -p {folder}\n{write}"))
        }
        Target::Link(path) => {
            Some(format!("mkdir -p {}\nln -sfn {} {}\n", quote(parent(path)), quote(&change.after), quote(path)))
        }
        _ => None,
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Kind;
    use crate::change::render::WhyOf;
    use crate::facts::Layer;

    #[derive(Debug)]
    struct NoReasons;

    impl WhyOf for NoReasons {
        fn why(&self, _: &str) -> Option<String> {
            None
        }
    }

    /// Seen failing without the firewall among the subjects.
    #[test]
    fn every_target_of_a_plan_has_its_commands() {
        for (target, after, wanted) in [
            ("sysctl:vm.overcommit_memory", "1", "sysctl -w 'vm.overcommit_memory=1'\n"),
            ("thp:enabled", "never", "echo 'never' > '/sys/kernel/mm/transparent_hugepage/enabled'\n"),
            (
                "thp:hugepages-64kB",
                "inherit",
                "echo 'inherit' > '/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled'\n",
            ),
            ("link:/etc/a/b", "/c", "mkdir -p '/etc/a'\nln -sfn '/c' '/etc/a/b'\n"),
            (
                "file:/etc/a/b",
                "x\n",
                "mkdir -p '/etc/a'\ncat > '/etc/a/b' <<'PREFLIGHT'\nx\nPREFLIGHT\nchmod 0644 '/etc/a/b'\n",
            ),
            ("service:preflight-guard", "started", "systemctl daemon-reload\nsystemctl start 'preflight-guard'\n"),
            ("ufw:allow 6379/tcp", "ufw allow 6379/tcp", "\nufw allow 6379/tcp\n"),
            ("firewalld:public: 6379/tcp", "firewall-cmd --x", "\nfirewall-cmd --x\n"),
            ("firewalld-permanent:public: 6379/tcp", "firewall-cmd --y", "\nfirewall-cmd --y\n"),
            ("guard:nft", "table inet x {\n}\n", "table inet x {\n}\nPREFLIGHT\n"),
        ] {
            let change = Change {
                id: "a.b".into(),
                layer: Layer::Live,
                target: target.into(),
                before: None,
                after: after.into(),
                kind: Kind::Needed,
                undo: String::new(),
                restarts: Vec::new(),
                connectivity_risk: false,
            };
            let plan = Plan::new(vec![change], Vec::new(), Vec::new());
            let mut text = Vec::new();
            script(&plan, &Head { profile: "p", host: "h", why: &NoReasons, allow: &[] }, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.ends_with(wanted), "{target}: {text}");
        }
    }
}
