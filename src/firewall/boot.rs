//! What brings the guard back at boot: its text as a file of its own, and a unit that loads it before Docker publishes
//! anything. The live rule set of the host is never saved: that would freeze what Docker changes by the minute.

use std::fmt::Write as _;

use super::guard::REMOVE;
use crate::facts::network::Network;

/// The service under either init system.
pub const NAME: &str = "preflight-guard";
/// The knob behind which it is started.
pub const SERVICE: &str = "service:preflight-guard";

/// The guard as `nft -f` takes it.
pub const FILE: &str = "/etc/preflight/guard.nft";
pub const UNIT: &str = "/etc/systemd/system/preflight-guard.service";
/// What `systemctl enable` would make.
pub const UNIT_LINK: &str = "/etc/systemd/system/multi-user.target.wants/preflight-guard.service";
pub const OPENRC: &str = "/etc/init.d/preflight-guard";
/// What `rc-update add preflight-guard boot` would make.
pub const OPENRC_LINK: &str = "/etc/runlevels/boot/preflight-guard";

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
pub fn file_text(guard: &str, origin: &Origin) -> String {
    format!("{HEADER}{}{REMOVE}{guard}", origin.lines())
}

/// The guard's text in our file; `None` when it is not as [`file_text`] writes it.
pub fn guard_in(file: &str) -> Option<&str> {
    let mut rest = file.strip_prefix(HEADER)?;
    for title in [ALLOW, NETWORKS] {
        if rest.starts_with(title) {
            rest = rest.split_once('\n')?.1;
        }
    }
    rest.strip_prefix(REMOVE)
}

/// The unit for systemd. What starts, stops and reloads nftables.service empties all tables, ours too, so ours is loaded
/// again with it. It has no `ExecStop=`: stopping a service must not open a port.
pub const UNIT_TEXT: &str = "\
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
WantedBy=multi-user.target
";

/// The same for OpenRC, where nothing follows a restart of another service.
pub const OPENRC_TEXT: &str = "\
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
