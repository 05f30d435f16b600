//! What brings the guard back at boot: its text as a file of its own, and a unit that loads it before Docker publishes
//! anything. The live rule set of the host is never saved: that would freeze what Docker changes by the minute.

use std::fmt::Write as _;

use super::guard::{Guard, REMOVE};
use super::iptables::{self, Variant};
use super::writer::Writer;
use crate::facts::network::Network;

/// The service under either init system.
pub const NAME: &str = "preflight-guard";
/// The knob behind which it is started.
pub const SERVICE: &str = "service:preflight-guard";

/// The guard as `nft -f` takes it.
pub const FILE: &str = "/etc/preflight/guard.nft";
/// The guard as `iptables-restore --noflush` and `ip6tables-restore --noflush` take it.
pub const IPTABLES: [&str; 2] = ["/etc/preflight/guard.v4", "/etc/preflight/guard.v6"];
pub const UNIT: &str = "/etc/systemd/system/preflight-guard.service";
/// What `systemctl enable` would make: the first has it started by the boot, the others by who starts what empties the
/// tables, [`EMPTYING`] in that order. A restart and a reload reach it by themselves, a start after a stop does not.
pub const UNIT_LINKS: [&str; 6] = [
    "/etc/systemd/system/multi-user.target.wants/preflight-guard.service",
    "/etc/systemd/system/nftables.service.wants/preflight-guard.service",
    "/etc/systemd/system/firewalld.service.wants/preflight-guard.service",
    "/etc/systemd/system/iptables.service.wants/preflight-guard.service",
    "/etc/systemd/system/ip6tables.service.wants/preflight-guard.service",
    "/etc/systemd/system/netfilter-persistent.service.wants/preflight-guard.service",
];
pub const UNIT_LINK: &str = UNIT_LINKS[0];
/// What empties iptables when it starts or stops. The first empties nftables.
const EMPTYING: &str =
    "nftables.service firewalld.service iptables.service ip6tables.service netfilter-persistent.service";
pub const OPENRC: &str = "/etc/init.d/preflight-guard";
/// What `rc-update add preflight-guard boot` would make.
pub const OPENRC_LINK: &str = OPENRC_LINKS[0];
const OPENRC_LINKS: [&str; 1] = ["/etc/runlevels/boot/preflight-guard"];

const HEADER: &str = "\
# Written by preflight: who may reach the ports of the workload. Edits are lost
# at the next `preflight tune --apply`; `preflight rollback` takes it away.
";

/// Before the words of `allow` as they were, and the networks of Docker as they were.
const ALLOW: &str = "# allow: ";
const NETWORKS: &str = "# docker:networks: ";

/// What a guard was made of: Docker's networks may be others by now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The words of the parameter `allow`.
    pub allow: Vec<String>,
    /// What `docker:networks` stood for.
    pub networks: Vec<Network>,
}

impl Origin {
    fn lines(&self) -> String {
        let networks: Vec<String> = self.networks.iter().map(ToString::to_string).collect();
        let mut text = String::new();
        for (title, words) in [(ALLOW, &self.allow), (NETWORKS, &networks)] {
            if !words.is_empty() {
                let _ = writeln!(text, "{title}{}", words.join(" "));
            }
        }
        text
    }

    /// What stands in our file; `None` when nothing does.
    pub fn of(file: &str) -> Option<Self> {
        let line = |title: &str| file.lines().find_map(|line| line.strip_prefix(title)).map(str::split_whitespace);
        let networks = line(NETWORKS).into_iter().flatten().map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { allow: line(ALLOW)?.map(str::to_owned).collect(), networks })
    }
}

/// The file for a guard's text: it makes the table anew, in one transaction, whatever is there.
fn file_text(guard: &str, origin: &Origin) -> String {
    format!("{}{REMOVE}{guard}", head(origin))
}

fn head(origin: &Origin) -> String {
    format!("{HEADER}{}", origin.lines())
}

/// The guard's text in our file; `None` when it is not as [`file_text`] writes it.
fn guard_in(file: &str) -> Option<&str> {
    below_head(file)?.strip_prefix(REMOVE)
}

fn below_head(file: &str) -> Option<&str> {
    let mut rest = file.strip_prefix(HEADER)?;
    for title in [ALLOW, NETWORKS] {
        if rest.starts_with(title) {
            rest = rest.split_once('\n')?.1;
        }
    }
    Some(rest)
}

/// The files that hold the guard of a writer.
pub fn paths(writer: Writer) -> &'static [&'static str] {
    match writer {
        Writer::Nft => &[FILE],
        Writer::Iptables(_) => &IPTABLES,
    }
}

/// Those files and what is to be in them.
pub fn files(writer: Writer, guard: &Guard, origin: &Origin) -> Vec<(&'static str, String)> {
    match writer {
        Writer::Nft => vec![(FILE, file_text(&guard.text(), origin))],
        Writer::Iptables(_) => {
            let texts = iptables::boot_texts(guard).map(|text| format!("{}{text}", head(origin)));
            IPTABLES.into_iter().zip(texts).collect()
        }
    }
}

/// The guard that files bring at boot, as [`Writer::text`] has it; `None` when they are not as [`files`] writes them.
pub fn guard_of(writer: Writer, texts: &[Option<String>]) -> Option<String> {
    match (writer, texts) {
        (Writer::Nft, [Some(file)]) => guard_in(file).map(str::to_owned),
        (Writer::Iptables(variant), [Some(v4), Some(v6)]) => {
            iptables::booted(variant, [below_head(v4)?, below_head(v6)?])
        }
        _ => None,
    }
}

/// The unit or script that loads the files of a writer, its text, and the links that have it started; the first is that of
/// the boot.
pub fn service(writer: Writer, openrc: bool) -> (&'static str, String, &'static [&'static str]) {
    let (path, links): (_, &[&str]) = match (writer, openrc) {
        (_, true) => (OPENRC, &OPENRC_LINKS),
        (Writer::Nft, false) => (UNIT, &UNIT_LINKS[..2]),
        (Writer::Iptables(_), false) => (UNIT, &UNIT_LINKS),
    };
    let text = match (writer, openrc) {
        (Writer::Nft, false) => UNIT_TEXT.to_owned(),
        (Writer::Nft, true) => OPENRC_TEXT.to_owned(),
        (Writer::Iptables(variant), false) => unit_text(variant),
        (Writer::Iptables(variant), true) => openrc_text(variant),
    };
    (path, text, links)
}

/// Whose files a service loads; `None` when it is not as [`service`] writes it: one that somebody edited may load nothing.
pub fn loaded_by(text: &str) -> Option<Writer> {
    Writer::ALL.into_iter().find(|writer| [false, true].iter().any(|openrc| service(*writer, *openrc).1 == text))
}

/// The unit for systemd. What starts, stops and reloads nftables.service empties all tables, ours too, so ours is loaded
/// again with it. It has no `ExecStop=`: stopping a service must not open a port.
const UNIT_TEXT: &str = "\
# Written by preflight; `preflight rollback` takes it away.
[Unit]
Description=Keep strangers from the ports of the workload
Documentation=man:preflight(1)
DefaultDependencies=no
After=local-fs.target nftables.service firewalld.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
Before=network-pre.target docker.service containerd.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
ConditionPathExists=/etc/preflight/guard.nft

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /etc/preflight/guard.nft
ExecReload=/usr/sbin/nft -f /etc/preflight/guard.nft

[Install]
WantedBy=multi-user.target nftables.service
";

/// The same for OpenRC, where nothing follows a restart of another service.
const OPENRC_TEXT: &str = "\
#!/sbin/openrc-run
# Written by preflight; `preflight rollback` takes it away.

description=\"Keep strangers from the ports of the workload\"

depend() {
    need localmount
    after nftables iptables ip6tables firewall
    before net docker containerd
}

start() {
    ebegin \"Loading the guard of the workload's ports\"
    /usr/sbin/nft -f /etc/preflight/guard.nft
    eend $?
}
";

/// What brings the jump where it is missing, so that a second load changes nothing and never leaves it out.
fn jump(program: &str, v6: bool) -> String {
    let tool = iptables::tool(v6, "");
    let rule = |verb: &str| {
        let (table, hook, chain) = (iptables::TABLE, iptables::HOOK, iptables::CHAIN);
        format!("{program} {tool} -w -t {table} {verb} {hook} -j {chain}")
    };
    format!("{} 2>/dev/null || {}", rule("-C"), rule("-I"))
}

/// `-w` stands before another option: a word behind it would be its number of seconds.
fn restore(program: &str, v6: bool) -> String {
    let [v4_file, v6_file] = IPTABLES;
    let file = if v6 { v6_file } else { v4_file };
    format!("{program} {} -w --noflush {file}", iptables::tool(v6, "-restore"))
}

/// The unit where nft is missing.
fn unit_text(variant: Variant) -> String {
    let program = format!("/usr/sbin/{}", variant.program());
    let mut load = String::new();
    for v6 in [false, true] {
        let (restore, jump) = (restore(&program, v6), jump(&program, v6));
        let _ = writeln!(load, "COMMAND={restore}\nCOMMAND=/bin/sh -c '{jump}'");
    }
    let (start, reload) = (load.replace("COMMAND", "ExecStart"), load.replace("COMMAND", "ExecReload"));
    let [file, _] = IPTABLES;
    format!(
        "\
# Written by preflight; `preflight rollback` takes it away.
[Unit]
Description=Keep strangers from the ports of the workload
Documentation=man:preflight(1)
DefaultDependencies=no
After=local-fs.target {EMPTYING}
PartOf={EMPTYING}
ReloadPropagatedFrom={EMPTYING}
Before=network-pre.target docker.service containerd.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
ConditionPathExists={file}

[Service]
Type=oneshot
RemainAfterExit=yes
{start}{reload}
[Install]
WantedBy=multi-user.target {EMPTYING}
"
    )
}

/// The same for OpenRC.
fn openrc_text(variant: Variant) -> String {
    let program = variant.program();
    let family = |v6| format!("{} && {{ {}; }}", restore(program, v6), jump(program, v6));
    let (v4, v6) = (family(false), family(true));
    format!(
        "\
#!/sbin/openrc-run
# Written by preflight; `preflight rollback` takes it away.

description=\"Keep strangers from the ports of the workload\"

depend() {{
    need localmount
    after nftables iptables ip6tables firewall
    before net docker containerd
}}

start() {{
    ebegin \"Loading the guard of the workload's ports\"
    {v4} &&
        {v6}
    eend $?
}}
"
    )
}

/// What a shell loads a guard of iptables with; `None` for a text that is none.
pub fn commands(variant: Variant, guard: &str) -> Option<String> {
    let program = variant.program();
    let mut text = String::new();
    for (v6, rules) in [false, true].into_iter().zip(iptables::loads(guard, variant)?) {
        let restore = iptables::tool(v6, "-restore");
        let _ =
            writeln!(text, "{program} {restore} -w --noflush <<'PREFLIGHT'\n{rules}PREFLIGHT\n{}", jump(program, v6));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seen failing with `loaded_by` looking for the program in the text: one that loads nothing passed.
    #[test]
    fn every_service_names_whose_files_it_loads() {
        for writer in Writer::ALL {
            for openrc in [false, true] {
                let (_, text, _) = service(writer, openrc);
                assert_eq!(loaded_by(&text), Some(writer), "{text}");
                assert!(paths(writer).iter().all(|path| text.contains(path)), "{text}");
            }
        }
        let (_, text, _) = service(Writer::Nft, false);
        for edited in ["ExecStart=/usr/sbin/nft -c -f", "ExecStart=-/bin/true # /usr/sbin/nft -f"] {
            assert_eq!(loaded_by(&text.replace("ExecStart=/usr/sbin/nft -f", edited)), None);
        }
    }

    /// The links are those that `systemctl enable` makes of the text. Seen failing with one of them left out.
    #[test]
    fn the_links_are_those_that_the_unit_asks_for() {
        for writer in Writer::ALL {
            let (_, unit, links) = service(writer, false);
            let wanted = unit.lines().find_map(|line| line.strip_prefix("WantedBy=")).unwrap().split(' ');
            let made: Vec<String> =
                wanted.map(|by| format!("/etc/systemd/system/{by}.wants/preflight-guard.service")).collect();
            assert_eq!(made, links);
        }
    }

    #[test]
    fn what_loads_chains_of_iptables_is_the_documented_one() {
        let (_, unit, _) = service(Writer::Iptables(Variant::Legacy), false);
        let of = |key: &str| unit.lines().filter_map(|line| line.strip_prefix(key)).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(of("ExecStart="), @"
        /usr/sbin/xtables-legacy-multi iptables-restore -w --noflush /etc/preflight/guard.v4
        /bin/sh -c '/usr/sbin/xtables-legacy-multi iptables -w -t mangle -C PREROUTING -j PREFLIGHT 2>/dev/null || /usr/sbin/xtables-legacy-multi iptables -w -t mangle -I PREROUTING -j PREFLIGHT'
        /usr/sbin/xtables-legacy-multi ip6tables-restore -w --noflush /etc/preflight/guard.v6
        /bin/sh -c '/usr/sbin/xtables-legacy-multi ip6tables -w -t mangle -C PREROUTING -j PREFLIGHT 2>/dev/null || /usr/sbin/xtables-legacy-multi ip6tables -w -t mangle -I PREROUTING -j PREFLIGHT'
        ");
        assert_eq!(of("ExecReload="), of("ExecStart="));
        let (_, script, _) = service(Writer::Iptables(Variant::Nft), true);
        insta::assert_snapshot!(script.split_once("start() {").unwrap().1, @r#"
            ebegin "Loading the guard of the workload's ports"
            xtables-nft-multi iptables-restore -w --noflush /etc/preflight/guard.v4 && { xtables-nft-multi iptables -w -t mangle -C PREROUTING -j PREFLIGHT 2>/dev/null || xtables-nft-multi iptables -w -t mangle -I PREROUTING -j PREFLIGHT; } &&
                xtables-nft-multi ip6tables-restore -w --noflush /etc/preflight/guard.v6 && { xtables-nft-multi ip6tables -w -t mangle -C PREROUTING -j PREFLIGHT 2>/dev/null || xtables-nft-multi ip6tables -w -t mangle -I PREROUTING -j PREFLIGHT; }
            eend $?
        }
        "#);
    }

    #[test]
    fn every_guard_is_read_back_from_its_files() {
        for writer in Writer::ALL {
            let guard = Guard::default();
            let origin = Origin { allow: vec!["10.0.0.0/8".into()], networks: Vec::new() };
            let mut texts: Vec<Option<String>> =
                files(writer, &guard, &origin).into_iter().map(|(_, text)| Some(text)).collect();
            assert_eq!(guard_of(writer, &texts), Some(writer.text(&guard)));
            if let Some(Some(last)) = texts.last_mut() {
                last.insert(0, '#');
            }
            assert_eq!(guard_of(writer, &texts), None, "{writer:?}: edited");
            texts.pop();
            assert_eq!(guard_of(writer, &texts), None, "{writer:?}: one is gone");
        }
    }

    proptest! {
        #[test]
        fn the_guard_is_read_back_from_its_file(
            guard in "\\PC{0,80}",
            allow in proptest::collection::vec("[0-9a-z:./]{1,12}", 0..4),
            networks in proptest::collection::vec("10\\.[1-9]\\.0\\.0/16", 0..4),
        ) {
            let networks = networks.iter().map(|word| word.parse().unwrap()).collect();
            let origin = Origin { allow, networks };
            let file = file_text(&guard, &origin);
            prop_assert_eq!(guard_in(&file), Some(&*guard));
            prop_assert_eq!(Origin::of(&file), Some(origin.clone()).filter(|it| !it.allow.is_empty()));
            prop_assert_eq!(guard_in(&format!("{file}x")).is_some(), true);
            prop_assert_eq!(guard_in(&guard), None);
        }
    }
}
