//! What a guard can be written with on this host: nft, and iptables in either variant.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::facts::{Fact, Facts, Value};
use crate::host::Host;
use crate::subjects::context::Context;
use crate::subjects::firewall::model::iptables::Variant;
use crate::subjects::firewall::model::writer::Writer;

const PROGRAMS: &str = "firewall.programs";
const IPTABLES: &str = "firewall.iptables";

/// Where packages of the distribution put programs.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// More links than any distribution has between a name and its program.
const MAX_LINKS: usize = 16;

/// Gathers which programs there are. None is run: what `iptables` stands for is where its links lead.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    for (id, gather) in [(PROGRAMS, programs as fn(&Host) -> Fact), (IPTABLES, iptables)] {
        if cx.want.has(id) {
            let started = Instant::now();
            facts.live(id, gather(cx.host).took(started.elapsed()));
        }
    }
}

fn place(host: &Host, name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| host.exists(path))
}

fn programs(host: &Host) -> Fact {
    let found = Writer::ALL.into_iter().filter(|writer| place(host, writer.program()).is_some());
    let names = found.map(|writer| writer.name().to_owned());
    Fact::known(Value::Set(names.collect()), FOLDERS.join(", "))
}

fn iptables(host: &Host) -> Fact {
    let [v4, v6] = ["iptables", "ip6tables"].map(|name| place(host, name));
    let (Some(v4), Some(v6)) = (v4, v6) else {
        return Fact::absent("iptables and ip6tables are not both installed", FOLDERS.join(", "));
    };
    let source = v4.display().to_string();
    let ends = [v4, v6].map(|path| end(host, path));
    match ends.each_ref().map(|end| end.file_name().and_then(|name| Variant::of_program(name.to_str()?))) {
        [Some(v4), Some(v6)] if v4 == v6 => Fact::known(Value::Text(v4.name().into()), source),
        [Some(_), Some(_)] => Fact::unknown(
            "iptables and ip6tables stand for different variants",
            Some("update-alternatives --config iptables; update-alternatives --config ip6tables"),
            source,
        ),
        _ => {
            let [v4, v6] = ends.map(|end| end.display().to_string());
            Fact::unknown(format!("iptables and ip6tables are {v4} and {v6}, of no known variant"), None, source)
        }
    }
}

/// Where the links of a path lead in the end.
fn end(host: &Host, mut path: PathBuf) -> PathBuf {
    for _ in 0..MAX_LINKS {
        match (host.link_target(&path), path.parent()) {
            (Some(target), Some(parent)) => path = parent.join(target),
            _ => break,
        }
    }
    path
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use crate::facts::State;

    fn root(files: &[&str], links: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for path in files {
            std::fs::write(place(path), "").unwrap();
        }
        for (path, to) in links {
            std::os::unix::fs::symlink(to, place(path)).unwrap();
        }
        let host = Host::at_root(root.path());
        (root, host)
    }

    /// The links of Debian and of Alpine. Seen failing with only one link followed.
    #[test]
    fn what_iptables_stands_for_is_where_its_links_lead() {
        let multi = ["/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi"];
        let debian = |v4: &'static str, v6: &'static str| {
            let (_root, host) = root(
                &multi,
                &[
                    ("/usr/sbin/iptables", "/etc/alternatives/iptables"),
                    ("/usr/sbin/ip6tables", "/etc/alternatives/ip6tables"),
                    ("/etc/alternatives/iptables", v4),
                    ("/etc/alternatives/ip6tables", v6),
                    ("/usr/sbin/iptables-nft", "xtables-nft-multi"),
                    ("/usr/sbin/ip6tables-nft", "xtables-nft-multi"),
                    ("/usr/sbin/iptables-legacy", "xtables-legacy-multi"),
                    ("/usr/sbin/ip6tables-legacy", "xtables-legacy-multi"),
                ],
            );
            (iptables(&host), programs(&host))
        };
        let text = |fact: &Fact| fact.value().map(ToString::to_string);
        let (nft, programs) = debian("/usr/sbin/iptables-nft", "/usr/sbin/ip6tables-nft");
        assert_eq!(text(&nft).as_deref(), Some("iptables-nft"));
        assert_eq!(text(&programs).as_deref(), Some("iptables-legacy, iptables-nft"));
        let (legacy, _) = debian("/usr/sbin/iptables-legacy", "/usr/sbin/ip6tables-legacy");
        assert_eq!(text(&legacy).as_deref(), Some("iptables-legacy"));
        let (mixed, _) = debian("/usr/sbin/iptables-nft", "/usr/sbin/ip6tables-legacy");
        assert!(matches!(mixed.state, State::Unknown { .. }), "{mixed:?}");

        let alpine = [("/sbin/iptables", "xtables-nft-multi"), ("/sbin/ip6tables", "xtables-nft-multi")];
        let (_root, host) = root(&["/sbin/xtables-nft-multi", "/usr/sbin/nft"], &alpine);
        assert_eq!(text(&iptables(&host)).as_deref(), Some("iptables-nft"));
        let (_root, host) = root(&["/sbin/xtables-nft-multi"], &alpine[..1]);
        assert!(matches!(iptables(&host).state, State::Absent(_)), "half of it");
        let (_root, host) = root(&["/sbin/iptables", "/sbin/ip6tables"], &[]);
        assert!(matches!(iptables(&host).state, State::Unknown { .. }), "a program that says nothing of itself");
        let (_root, host) = root(&[], &[("/sbin/iptables", "iptables"), ("/sbin/ip6tables", "iptables")]);
        assert!(matches!(iptables(&host).state, State::Absent(_)), "a link to itself");
    }
}
