//! The guard that preflight itself applies: the program is run on the host, and what it says is compared with what the
//! traffic does.

use crate::support::process::{Ran, run};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use preflight::subjects::firewall::model::writer::Writer;

use super::disturb::Disturbance;
use super::matrix::{
    look_until_quiet, look_when_published, record, same_rules, strangers_inside, takes_the_guard_along,
};
use super::paths::{CLUSTER_NETWORK, FREE, OUTSIDE, PORTS, Path, Seen, Who};
use super::probe::{Answer, Try, ask, hold, ping};
use super::world::{ALLOWED, HOST4, Manager, STRANGER, World};

/// Whom the workload is for, as an operator writes it.
const ALLOW: &str = "allow=10.77.0.50,fd77::50,docker:networks";
/// The same in as few words as it can be said, for a manager: its program takes some time for each entry.
const ALLOW_SHORT: &str = "allow=10.77.0.50,fd77::50,172.20.0.0/14,fd00:20::/28";
const APPLY: [&str; 5] = ["--apply", "--confirm-within", "0", "--settle", "0"];
const NOT_YET: &str = "not published yet; as Docker would, ";
/// An address that nobody has, of the cluster's network.
const LIAR: &str = "172.20.0.77/32";
const CUT_PEERS: &str = "firewall.cut-peers";

/// Each finding by its id: the result, what was observed, the notes.
type Findings = BTreeMap<String, [String; 3]>;

/// The whole life of the program's guard on a host that others have been measured on.
///
/// Seen failing, and mended: a plan right after the apply that was not empty. Seen failing with the rule of the ports left
/// out of `Guard::text`, with `listeners::addresses` given no sockets, with the connections of containers not looked at in
/// `peers`, and with `guarded::compare` finding no difference. With iptables seen failing without the jump among the commands
/// of the service.
pub(crate) fn live(world: &mut World, before: &Seen) {
    let what = world.kind.to_string();
    if world.kind.trixie && world.kind.guard == Writer::Nft && world.kind.manager != Manager::Firewalld {
        world.take_newer_nft();
    }
    if world.kind.manager == Manager::Ufw {
        // An entry behind the administrator's own denial would let nobody in. ufw denies without it, too.
        world.shell("for p in 6379:6381 26379:26381; do ufw delete deny $p/tcp; done");
        let without = look_until_quiet(world, &what, before);
        assert!(without.differences(before).is_empty(), "{what}: {:?}", without.differences(before));
    }
    let (rules, files) = (world.rules(), world.files());
    let findings = world.agrees(&what, before);
    says(&findings, "missing", "there is no guard");
    world.refuses_to_cut_peers(&what, before, &rules);
    same_rules(&what, &world.rules(), &rules);

    let after = world.apply(&what, before);
    let rollback = world.preflight(&["rollback", "--all"]);
    assert_eq!(rollback.code, 0, "{what}: {rollback:?}");
    // The kernel answers what is refused so many times a second and no more: one answer alone may be late.
    let again = look_until_quiet(world, &what, before);
    assert!(again.differences(before).is_empty(), "{what}, rolled back: {:?}", again.differences(before));
    same_rules(&what, &world.rules(), &rules);
    assert_eq!(world.files(), files, "{what}, rolled back");
    says(&world.agrees(&what, &again), "missing", "there is no guard");

    let second = world.apply(&what, before);
    assert!(second.differences(&after).is_empty(), "{what}, again: {:?}", second.differences(&after));
    record(world.kind, Some(world.kind.guard), "", &after);
    world.predicts(&what);
    if world.kind.manager == Manager::None {
        world.tells_who_goes_around(&what);
        world.names_what_it_does_not_cover(&what);
    }
    for disturbance in Disturbance::of(world.kind.manager) {
        let what = format!("{what}, {}", disturbance.name());
        // Before everything is gone.
        if disturbance == Disturbance::NftablesService && world.allow() == ALLOW {
            world.survives_another_bridge(&what, &after);
            world.drops_who_only_claims_to_be_a_neighbour(&what);
            world.survives_another_network(&what, &after);
        }
        world.disturb(disturbance);
        let mut happened = disturbance.name().to_owned();
        if takes_the_guard_along(disturbance, world.kind.guard) {
            world.says_that_it_is_gone(&what, disturbance, &after);
            world.disturb(Disturbance::GuardService);
            happened = format!("{happened}, and {}", Disturbance::GuardService.name());
        }
        let seen = if disturbance == Disturbance::NftablesService {
            // The manager's and Docker's rules are gone: what the guard keeps closed is closed all the same.
            world.look()
        } else {
            let seen = look_until_quiet(world, &what, &after);
            assert!(seen.differences(&after).is_empty(), "{what}: {:?}", seen.differences(&after));
            world.has_not_drifted(&what);
            seen
        };
        assert_eq!(strangers_inside(&seen), "", "{what}");
        says(&world.agrees(&what, &seen), "as planned", "kept");
        record(world.kind, Some(world.kind.guard), &happened, &seen);
    }
    world.mend();
    let end = look_until_quiet(world, &what, &after);
    assert!(end.differences(&after).is_empty(), "{what}, mended: {:?}", end.differences(&after));
    world.has_not_drifted(&what);
    let rollback = world.preflight(&["rollback", "--all"]);
    assert_eq!(rollback.code, 0, "{what}: {rollback:?}");
    let end = look_until_quiet(world, &what, before);
    assert!(end.differences(before).is_empty(), "{what}, at the end: {:?}", end.differences(before));
    assert_eq!(world.files(), files, "{what}, at the end");
}

/// What `firewall.guard` and `firewall.persistence` say.
fn says(findings: &Findings, guard: &str, persistence: &str) {
    let observed = ["firewall.guard", "firewall.persistence"].map(|id| findings[id][1].as_str());
    assert_eq!(observed, [guard, persistence]);
}

impl World {
    /// The program on the host.
    fn preflight(&self, args: &[&str]) -> Ran {
        self.command("preflight").args(args).args(["--format", "json"]).output().unwrap().into()
    }

    fn allow(&self) -> &'static str {
        if self.kind.manager == Manager::None { ALLOW } else { ALLOW_SHORT }
    }

    fn tune(&self, args: &[&str]) -> Ran {
        self.tune_only("firewall.*", args)
    }

    fn tune_only(&self, ids: &str, args: &[&str]) -> Ran {
        self.preflight(&[&["tune", "--only", ids, "--set", self.allow()], args].concat())
    }

    fn findings(&self) -> Findings {
        let report = self.preflight(&["check", "--only", "firewall.*", "--set", self.allow()]).json();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let notes = |it: &serde_json::Value| it["notes"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        let findings = report["findings"].as_array().unwrap().iter();
        findings
            .map(|it| (text(&it["id"]), [text(&it["result"]), text(&it["observed"]), notes(it).join("; ")]))
            .collect()
    }

    /// What the program has on the disk, and what ufw keeps.
    fn files(&self) -> String {
        self.shell(
            "find /etc/preflight /etc/systemd/system -path '*preflight*' 2>/dev/null | sort
             ! [ -e /etc/ufw/user.rules ] || grep -h '### tuple' /etc/ufw/user.rules /etc/ufw/user6.rules || true",
        )
    }

    /// Strangers are out, and whom `allow` names is in, on every way. The plan is empty then, and nothing has drifted.
    fn apply(&self, what: &str, before: &Seen) -> Seen {
        let applied = self.tune(&APPLY);
        assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "{what}: {applied:?}");
        assert!(applied.texts("changes", "target").contains(&self.guard()), "{what}: {applied:?}");
        let after = self.look();
        assert_eq!(strangers_inside(&after), "", "{what}");
        let closed = |((who, _), answer): &(&(Who, &str), &Answer)| *who != Who::Stranger && **answer != Answer::Open;
        assert_eq!(after.answers.iter().filter(closed).collect::<Vec<_>>(), [], "{what}");
        assert_eq!(after.controls, before.controls, "{what}");
        let findings = self.agrees(what, &after);
        says(&findings, "as planned", "kept");
        // What the guard drops is known, whatever comes behind it.
        for port in PORTS {
            assert_eq!(findings[&format!("firewall.exposure.{port}")][0], "pass", "{what}: {findings:?}");
        }
        let plan = self.tune(&[]);
        assert_eq!(plan.texts("changes", "target"), [""; 0], "{what}: {plan:?}");
        self.has_not_drifted(what);
        after
    }

    fn has_not_drifted(&self, what: &str) {
        let verified = self.preflight(&["verify"]);
        assert_eq!(verified.code, 0, "{what}: {verified:?}");
    }

    /// `verify` says what is wrong with what; all that it says.
    fn has_drifted(&self, what: &str, target: &str, words: &str) -> String {
        let verified = self.preflight(&["verify"]);
        assert_eq!(verified.code, 1, "{what}: {verified:?}");
        let targets = verified.texts("drifts", "target");
        assert!(targets.contains(&target.to_owned()), "{what}: {targets:?}");
        let told = self.command("preflight").arg("verify").output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(told.contains(&format!("drift: {target}: {words}")), "{what}: {told}");
        told
    }

    /// The guard as plans and `verify` name it: the one that this host can have.
    fn guard(&self) -> String {
        format!("guard:{}", self.kind.guard.name())
    }

    /// After what took the guard along: it is said, with what firewalld does to one in iptables.
    fn says_that_it_is_gone(&self, what: &str, disturbance: Disturbance, after: &Seen) {
        let is_reload = disturbance == Disturbance::FirewalldReload;
        let seen = if is_reload { look_when_published(self, after) } else { self.look() };
        record(self.kind, Some(self.kind.guard), disturbance.name(), &seen);
        let told = self.has_drifted(what, &self.guard(), "it is gone");
        assert!(!is_reload || told.contains("firewalld takes away every rule of iptables"), "{what}: {told}");
        says(&self.agrees(what, &seen), "missing", "differs");
    }

    /// Nobody is cut off without consent: who would be is named, and nobody else.
    fn refuses_to_cut_peers(&self, what: &str, before: &Seen, rules: &[String]) {
        let from = |sources: [&str; 2], path: &Path| {
            let to: SocketAddr = path.to();
            let source = Some(sources[usize::from(to.is_ipv6())].parse().unwrap());
            hold(&Try { namespace: self.client_pid(), source, to })
        };
        let open: Vec<&Path> =
            OUTSIDE.iter().filter(|path| before.get(Who::Stranger, path.name) == Answer::Open).collect();
        let allowed: Vec<TcpStream> = open.iter().map(|path| from(ALLOWED, path)).collect();
        let plan = self.tune(&[]);
        assert_eq!(plan.texts("conflicts", "id"), [""; 0], "{what}, the allowed are connected: {plan:?}");

        let held: Vec<TcpStream> = open.iter().map(|path| from(STRANGER, path)).collect();
        let refused = self.tune(&APPLY);
        assert_eq!(refused.code, 2, "{what}: {refused:?}");
        let named: Vec<&str> = refused.stderr.split(|c: char| c.is_whitespace()).collect();
        for (path, source) in open.iter().map(|path| (path, STRANGER[usize::from(path.to().is_ipv6())])) {
            let words = format!("{source} (port {})", path.to().port());
            assert!(refused.stderr.contains(&words), "{what}: {words} is not named: {refused:?}");
        }
        assert!(!ALLOWED.iter().any(|allowed| named.contains(allowed)), "{what}: {refused:?}");
        assert!(refused.stderr.contains(CUT_PEERS), "{what}: {refused:?}");
        same_rules(&format!("{what}, refused"), &self.rules(), rules);

        // The guard alone: a manager's program takes its time for each entry.
        let applied = self.tune_only("firewall.guard", &[&APPLY[..], &["--allow", CUT_PEERS]].concat());
        assert_eq!(applied.code, 0, "{what}: {applied:?}");
        // As docs/firewall.md says: what is open stays open, and cannot be opened anew.
        assert!(held.iter().all(|stream| ping(stream) == Answer::Open), "{what}: an open connection was cut");
        assert!(allowed.iter().all(|stream| ping(stream) == Answer::Open), "{what}: one of the allowed was cut");
        assert_eq!(strangers_inside(&self.look()), "", "{what}");
        let rollback = self.preflight(&["rollback", "--all"]);
        assert_eq!(rollback.code, 0, "{what}: {rollback:?}");
    }

    /// `firewall.exposure` says of each port and family what a connection from outside does.
    fn agrees(&self, what: &str, seen: &Seen) -> Findings {
        let findings = self.findings();
        let mut open_over_ipv6_only = false;
        for port in PORTS {
            let [result, observed, notes] = &findings[&format!("firewall.exposure.{port}")];
            let [strangers, allowed] = [Who::Stranger, Who::Allowed].map(|who| seen.ports[&(who, port)]);
            if notes.starts_with(NOT_YET) {
                // What is foreseen there is for `predicts`.
                let answers = [strangers, allowed].concat();
                assert!(
                    port == FREE && !answers.contains(&Answer::Open),
                    "{what}, port {port}: {notes}, and {answers:?}"
                );
                continue;
            }
            let is_open = |answers: [Answer; 2]| answers.map(|answer| answer == Answer::Open);
            let (strangers, allowed) = (is_open(strangers), is_open(allowed));
            let word = |stranger: bool, allowed: bool| match (stranger, allowed) {
                (true, _) => "open",
                (false, true) => "allowed",
                (false, false) => "closed",
            };
            let any = |answers: [bool; 2]| answers.contains(&true);
            let real = word(any(strangers), any(allowed));
            assert_eq!(observed, real, "{what}, port {port}: {result}: {notes}, and {seen:?}");
            assert_eq!(result == "pass", real != "open", "{what}, port {port}: {result}");
            for (family, at) in [("IPv4", 0), ("IPv6", 1)] {
                let real = word(strangers[at], allowed[at]);
                assert_eq!(said(notes, family), real, "{what}, port {port}, {family}: {notes}");
            }
            open_over_ipv6_only |= strangers == [false, true];
        }
        // The port of comparison is open at all times, and leads to one of the cluster; 7380 leads to somebody else's.
        let [result, observed, _] = &findings["firewall.other-ports"];
        assert!(result == "fail" && observed.contains("tcp/7379 of node-1, to tcp/6379: "), "{what}: {observed}");
        assert!(!observed.contains("7380"), "{what}: {observed}");
        assert_eq!(findings["firewall.ipv6-parity"][0] == "fail", open_over_ipv6_only, "{what}: {findings:?}");
        findings
    }

    /// Until the container that was just started answers.
    fn waits_for(&self, it: &Try) {
        let started = Instant::now();
        while ask(it) != Answer::Open {
            assert!(started.elapsed() < Duration::from_secs(15), "{}: {it:?} does not answer", self.kind);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is said of a port that nobody has yet is what becomes of it once a container publishes it.
    fn predicts(&self, what: &str) {
        let predicted = self.findings()["firewall.exposure.26380"].clone();
        assert!(predicted[2].starts_with(NOT_YET), "{what}: {predicted:?}");
        self.start_container(&("late", "redis:7", "6379", "--network dual -p 26380:6379"));
        self.waits_for(&Try {
            namespace: self.host_pid(),
            source: None,
            to: SocketAddr::new("127.0.0.1".parse().unwrap(), FREE),
        });
        let real = self.agrees(what, &self.look())["firewall.exposure.26380"].clone();
        assert_eq!(predicted[..2], real[..2], "{what}");
        self.engine.docker(&["rm", "-f", "late"]);
    }

    /// Another bridge for the cluster, with the same subnet, is nothing to the guard: `check`, the plan and `verify` agree. A
    /// guard that knows the bridge by its name differs here, and `verify` does not say so.
    fn survives_another_bridge(&mut self, what: &str, after: &Seen) {
        self.make_network_anew(CLUSTER_NETWORK);
        let seen = self.look();
        assert!(seen.differences(after).is_empty(), "{what}, another bridge: {:?}", seen.differences(after));
        says(&self.agrees(what, &seen), "as planned", "kept");
        let plan = self.tune(&[]);
        assert_eq!(plan.texts("changes", "target"), [""; 0], "{what}, another bridge: {plan:?}");
        self.has_not_drifted(what);
    }

    /// A stranger with an address of the cluster's network, as he says. No answer would reach him either way, so the count
    /// of the guard is what tells.
    fn drops_who_only_claims_to_be_a_neighbour(&self, what: &str) {
        let dropped = || {
            // The rule, and what stands before its count.
            let (list, rule, before) = match self.kind.guard {
                Writer::Nft => ("nft list table inet preflight", ["ip saddr 172.20.0.0/16", "fib saddr"], "packets "),
                Writer::Iptables(_) => ("iptables-save -c -t mangle", ["-s 172.20.0.0/16", "rpfilter --invert"], "["),
            };
            let listed = self.shell(list);
            let rules = listed.lines().filter(|line| rule.iter().all(|words| line.contains(words)));
            let packets = rules.map(|line| {
                let count = line.split_once(before).unwrap().1;
                count.split([' ', ':']).next().unwrap().parse::<u64>().unwrap()
            });
            packets.collect::<Vec<_>>()
        };
        let client = self.client_pid().to_string();
        let address = |verb| run(&["nsenter", "--net", "--target", &client, "ip", "addr", verb, LIAR, "dev", "cl0"]);
        address("add");
        assert_eq!(dropped(), [0], "{what}: nobody has lied so far");
        let source = LIAR.trim_end_matches("/32").parse().ok();
        let answer = ask(&Try { namespace: self.client_pid(), source, to: "172.20.0.11:6379".parse().unwrap() });
        assert!(answer != Answer::Open && dropped()[0] > 0, "{what}: {answer:?}, {:?}", dropped());
        address("del");
    }

    /// Another subnet for the cluster: what is wrong then is said, and the next apply puts it right.
    fn survives_another_network(&mut self, what: &str, after: &Seen) {
        self.disturb(Disturbance::NetworkAnew);
        let seen = self.look();
        record(self.kind, Some(self.kind.guard), Disturbance::NetworkAnew.name(), &seen);
        // The new bridge is not one of those that the guard knows.
        assert_eq!(strangers_inside(&seen), "a stranger comes in: routed to the container", "{what}");
        let told = self.has_drifted(what, &self.guard(), "lets in ");
        assert!(told.contains("172.30.0.0/16"), "{what}: {told}");
        let findings = self.findings();
        says(&findings, "differs", "kept");
        // Whoever has an address of the old network is a stranger now, and the guard still lets him in.
        let [_, observed, notes] = &findings["firewall.exposure.6379"];
        assert!(observed == "open" && notes.contains("IPv4 open: from 172.20.0.0/16 at up0, "), "{what}: {notes}");
        let applied = self.tune(&APPLY);
        assert_eq!(applied.code, 0, "{what}: {applied:?}");
        let seen = self.look();
        assert!(seen.differences(after).is_empty(), "{what}, applied again: {:?}", seen.differences(after));
        says(&self.agrees(what, &seen), "as planned", "kept");
        self.has_not_drifted(what);
    }

    /// Somebody's rule sends another port on to the workload, to the host's own port or to a container: a stranger comes in
    /// past the guard, and `firewall.other-ports` says so with the rule.
    fn tells_who_goes_around(&self, what: &str) {
        let by_rule = [
            (16379, "tcp/16379, sent on to tcp/6379 by ip detour, chain before, "),
            (16381, "tcp/16381, sent on to tcp/6379 by "),
        ];
        let asked = || {
            by_rule.map(|(port, _)| {
                let to = SocketAddr::new(HOST4.parse().unwrap(), port);
                ask(&Try { namespace: self.client_pid(), source: Some(STRANGER[0].parse().unwrap()), to })
            })
        };
        let said = |findings: &Findings| {
            let observed = &findings["firewall.other-ports"][1];
            by_rule.map(|(_, words)| observed.contains(words))
        };
        let before = asked();
        assert!(!before.contains(&Answer::Open), "{what}: {before:?}");
        assert_eq!(said(&self.findings()), [false, false], "{what}");
        // An older nft than the one that wrote the guard dies of reading it.
        self.shell(
            "$(command -v nft || echo /run/lab/nft) 'table ip detour { chain before { type nat hook prerouting priority -110
               tcp dport 16379 redirect to :6379; }; }'
             iptables -t nat -I PREROUTING -p tcp --dport 16381 -j DNAT --to-destination 172.20.0.13:6379",
        );
        assert_eq!(asked(), [Answer::Open; 2], "{what}: it goes around the guard");
        let findings = self.findings();
        assert_eq!(said(&findings), [true, true], "{what}: {findings:?}");
        assert_eq!(findings["firewall.exposure.6379"][0], "pass", "{what}: {findings:?}");
        self.shell(
            "$(command -v nft || echo /run/lab/nft) delete table ip detour
             iptables -t nat -D PREROUTING -p tcp --dport 16381 -j DNAT --to-destination 172.20.0.13:6379",
        );
        assert_eq!((asked(), said(&self.findings())), (before, [false, false]), "{what}");
    }

    /// A container on a macvlan network is not behind the guard, and the plan says so.
    fn names_what_it_does_not_cover(&self, what: &str) {
        let words = ["--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.128/28", "-o", "parent=up0", "lan"];
        self.engine.docker(&[&["network", "create", "-d", "macvlan"], &words[..]].concat());
        self.start_container(&("outside", "redis:7", "6379", "--network lan --ip 10.77.0.130"));
        // A stranger, past the guard.
        self.waits_for(&Try {
            namespace: self.client_pid(),
            source: Some(STRANGER[0].parse().unwrap()),
            to: "10.77.0.130:6379".parse().unwrap(),
        });
        let plan = self.tune(&[]);
        assert_eq!(plan.texts("changes", "target"), [""; 0], "{what}: {plan:?}");
        let reasons = plan.texts("manual", "reason").join("; ");
        assert!(reasons.contains("outside on lan (macvlan)"), "{what}: {plan:?}");
        assert!(self.findings()["firewall.guard"][2].contains("outside on lan (macvlan)"), "{what}");
        self.engine.docker(&["rm", "-f", "outside"]);
        self.engine.docker(&["network", "rm", "lan"]);
    }
}

/// The word for one family in a note of `firewall.exposure`.
fn said(notes: &str, family: &str) -> &'static str {
    let families = [format!("{family} "), "IPv4 and IPv6 ".to_owned()];
    let words = [("open: ", "open"), ("for `allow` only: ", "allowed"), ("closed: ", "closed")];
    let found = words.iter().filter(|(said, _)| {
        families.iter().any(|families| {
            let text = format!("{families}{said}");
            // `IPv6 open: ` also stands in `IPv4 and IPv6 open: `, which says the same.
            notes.contains(&text)
        })
    });
    match found.collect::<Vec<_>>()[..] {
        [(_, word)] => word,
        _ => "not told",
    }
}
