//! Everything that reads what somebody else wrote, as functions from bytes: the fuzz targets call them with what
//! libFuzzer thinks of, the property tests of `tests/cli/hostile.rs` with random and damaged input.
//!
//! None may panic, hang, or grow its output out of proportion. Each has its seeds in `fuzz/seeds/NAME`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
#[cfg(feature = "docker")]
use std::time::Duration;

#[cfg(feature = "docker")]
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use preflight::apply::journal;
use preflight::apply::progress::Progress;
use preflight::apply::recovery;
use preflight::catalog::diagnostic::{Diagnostics, Source};
use preflight::catalog::library::Library;
use preflight::catalog::os::SysctlLoader;
use preflight::catalog::parameters::Protocol;
use preflight::catalog::{self, embedded, load, os, waiver};
#[cfg(feature = "docker")]
use preflight::facts::Facts;
use preflight::facts::snapshot::Snapshot;
use preflight::facts::{Kind, Version, ranges, value};
use preflight::host::main_process;
use preflight::host::mounts;
#[cfg(feature = "docker")]
use preflight::host::process_limits;
use preflight::host::{process, sock_diag};
use preflight::judge::Judge;
use preflight::report::{json, terminal};
use preflight::subjects::derive::derive;
#[cfg(feature = "docker")]
use preflight::subjects::docker::{
    answers,
    client::{Answer, Answers, Failure, inspected, listed},
    compose, daemon, endpoint, store,
};
use preflight::subjects::firewall::model::evaluate::{self, Question};
use preflight::subjects::firewall::model::packet::{Interface, Way};
use preflight::subjects::firewall::model::{entry::Entry, firewalld, region::Ranges, ufw};
use preflight::subjects::firewall::read::{bindings, connections, interfaces, manager, nft};
use preflight::subjects::gather;
use preflight::subjects::kernel::sysctl::winner::{self, SettingsFile};
use preflight::subjects::kernel::sysctl::{files, kernel};
use preflight::subjects::kernel::{conntrack, thp, tmpfiles, tuned, tuned_profile};
use preflight::subjects::limits::pam_limits;
use preflight::subjects::os::{host_container, identity, os_release};
use preflight::subjects::planner;
use preflight::subjects::ports as port;
use preflight::subjects::resources::cgroup;
use preflight::subjects::resources::cgroup::Controller;
use preflight::subjects::resources::deep;
use preflight::subjects::resources::memory;

/// One entry point.
pub struct EntryPoint {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

macro_rules! entry_points {
    ($($(#[$cfg:meta])? $name:ident)*) => { &[$($(#[$cfg])? EntryPoint { name: stringify!($name), run: $name }),*] };
}

/// All of them. A test asserts that each has a fuzz target and seeds.
pub const ENTRY_POINTS: &[EntryPoint] = entry_points! {
    profile checks waivers os_profile snapshot values os_release sysctl_files tmpfiles_files tuned_files limits_files firewall_files
    proc_files sock_diag_answer netfilter proc_net journal #[cfg(feature = "docker")] docker_answers #[cfg(feature = "docker")] docker_files
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a terminal may be given: nothing that steers it.
fn is_safe(shown: &str) -> bool {
    !shown.chars().any(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || ('\u{202a}'..='\u{202e}').contains(&c))
}

fn shown(diagnostics: &Diagnostics) {
    let text = diagnostics.render(false);
    assert!(is_safe(&text), "raw: {text:?}");
    for one in &diagnostics.list {
        assert!(!diagnostics.line(one).is_empty());
    }
}

/// A profile: loaded, linted, its mistakes rendered.
pub fn profile(bytes: &[u8]) {
    let mut library = Library::default();
    library.profiles.push(("p".into(), Source::file("p.toml", text(bytes))));
    let (_, diagnostics) = load::load_for_lint(&library, "p", planner::tuning);
    shown(&diagnostics);
}

/// A file of checks beside the embedded ones.
pub fn checks(bytes: &[u8]) {
    let library = Library { checks: vec![Source::file("c.toml", text(bytes))], ..Library::default() };
    let (_, diagnostics) = load::load_for_lint(&library, embedded::DEFAULT_PROFILE, planner::tuning);
    shown(&diagnostics);
}

pub fn waivers(bytes: &[u8]) {
    let mut diagnostics = Diagnostics::default();
    let (source, tree) = diagnostics.open(Source::file("w.toml", text(bytes)));
    let waivers = waiver::read_file(source, &tree, &mut diagnostics);
    waiver::check_ids(&waivers, &["kernel.overcommit", "port.free"].into_iter(), &mut diagnostics);
    shown(&diagnostics);
}

pub fn os_profile(bytes: &[u8]) {
    let mut diagnostics = Diagnostics::default();
    let (source, tree) = diagnostics.open(Source::file("os.toml", text(bytes)));
    os::read(source, &tree, &mut diagnostics);
    shown(&diagnostics);
}

/// A snapshot as `check --snapshot` takes it: read, its own profile loaded, judged, rendered in every form. What comes
/// out is safe for a terminal, and is the same the second time.
pub fn snapshot(bytes: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(bytes) else { return };
    let library = Library::of_snapshot(&snapshot.sources);
    let Ok(catalogue) = catalog::load(&library, &snapshot.profile, &snapshot.set, planner::tuning) else { return };
    let judged = || {
        let os = gather::os_of(&snapshot.facts);
        Judge::new(&catalogue, &snapshot, os, derive).report(&[], &|_, _| true)
    };
    let report = judged();
    assert_eq!(report, judged());
    for unicode in [false, true] {
        for detail in [terminal::Detail::Quiet, terminal::Detail::Normal, terminal::Detail::Verbose] {
            let mut out = Vec::new();
            terminal::write(&report, terminal::Style { width: 80, unicode, color: unicode, detail }, &mut out)
                .expect("a Vec takes all");
            let plain = anstream::adapter::strip_bytes(&out).into_vec();
            let plain = String::from_utf8(plain).expect("the report is UTF-8");
            assert!(is_safe(&plain), "raw: {plain:?}");
        }
    }
    let mut out = Vec::new();
    json::write(&report, &mut out).expect("a Vec takes all");
    let back: preflight::report::model::Report = serde_json::from_slice(&out).expect("the report reads back");
    assert_eq!(back, report);
}

/// Values, versions, ranges and the text of `--set`.
pub fn values(bytes: &[u8]) {
    let text = text(bytes);
    for kind in [Kind::Bool, Kind::Int, Kind::Bytes, Kind::Duration, Kind::Text, Kind::Version, Kind::Set, Kind::Sysctl]
    {
        if let Ok(value) = kind.parse(&text) {
            let _ = value.to_string();
        }
    }
    if let Ok(version) = Version::parse(&text) {
        assert_eq!(version.partial_cmp(&version), Some(std::cmp::Ordering::Equal), "{version}");
    }
    let _ = value::sysctl_value(&text);
    let _ = ranges::parse(&text);
    let library = Library::default();
    for name in ["ports", "maxmemory", "failover_target", "publish_address", "topology"] {
        let set = BTreeMap::from([(name.to_owned(), text.clone())]);
        let _ = catalog::load(&library, embedded::DEFAULT_PROFILE, &set, planner::tuning);
    }
}

pub fn os_release(bytes: &[u8]) {
    let text = text(bytes);
    let _ = os_release::parse(&text, "/etc/os-release");
    let _ = os_release::assignments(&text);
    let _ = identity::hostname(&text);
    let _ = identity::elf_machine(bytes);
}

/// Files of sysctl.d, as both loaders and tuned read them, split in two at the first line `---`.
pub fn sysctl_files(bytes: &[u8]) {
    const KEYS: [&str; 2] = ["/proc/sys/vm/overcommit_memory", "/proc/sys/net/core/somaxconn"];
    let text = text(bytes);
    let (first, second) = text.split_once("\n---\n").unwrap_or((&text, ""));
    for loader in [SysctlLoader::Systemd, SysctlLoader::Procps] {
        let files =
            [SettingsFile::parse("/etc/a.conf", first, loader), SettingsFile::parse("/etc/b.conf", second, loader)];
        for key in KEYS {
            let _ = winner::winner(&files, loader, &[key], &|value| kernel::accepts("vm.overcommit_memory", value));
        }
    }
    for swap in [false, true] {
        let _ = files::parse_as_tuned(&text, swap);
    }
    for line in text.lines() {
        let _ = kernel::shape(line, None);
        let _ = kernel::default(line, None, Some(line));
        let _ = preflight::subjects::kernel::sysctl::live::file_of(line);
    }
    let _ = preflight::subjects::kernel::sysctl::live::parse(&text);
}

pub fn tmpfiles_files(bytes: &[u8]) {
    const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let lines = tmpfiles::parse(&text(bytes));
    let files = [tmpfiles::TmpfilesFile { path: "/etc/tmpfiles.d/a.conf".into(), lines }];
    let _ = tmpfiles::written(&files, ENABLED);
    let _ = thp::parse(&text(bytes));
    let _ = thp::parse_config(&text(bytes));
}

/// A profile of tuned, alone and as the one that is active; every file it includes is itself.
pub fn tuned_files(bytes: &[u8]) {
    let text = text(bytes);
    let _ = tuned_profile::parse_flat(&text);
    let _ = tuned_profile::parse(&text, "/etc/tuned/a/tuned.conf");
    let tuned = tuned::resolve("a", &|path| Ok(path.starts_with("/etc/tuned/").then(|| text.clone())));
    if let Ok(tuned) = tuned {
        let longest = tuned.sysctls.iter().filter_map(|tune| tune.value.as_ref().ok()).map(String::len).max();
        assert!(longest.unwrap_or(0) < (1 << 20) + text.len(), "a value grew out of proportion");
    }
}

pub fn limits_files(bytes: &[u8]) {
    let _ = pam_limits::parse(&text(bytes));
}

/// What ufw, firewalld and nftables keep: whatever stands in them, an entry is only ever one of its own form.
pub fn firewall_files(bytes: &[u8]) {
    let text = text(bytes);
    let entries = ["tcp 6379-6381 from 172.20.0.0/16", "udp 53 from fd00::/8"].map(str::parse::<Entry>);
    let (rules, zone) = (ufw::parse(&text), firewalld::parse(&text));
    for entry in entries.iter().flatten() {
        let _ = (ufw::state(&rules, false, entry), ufw::found(&rules, entry));
        let _ = zone.as_ref().map(|zone| (zone.state(entry), zone.has(entry)));
    }
    for line in text.lines() {
        if let Ok(entry) = line.parse::<Entry>() {
            assert_eq!(entry.to_string(), line);
            assert!(ufw::add(&entry, true).iter().all(|word| !word.starts_with('-')));
        }
    }
    assert!(firewalld::is_zone_name(firewalld::default_zone(&text)));
    let _ = (ufw::is_enabled(&text), ufw::default_allows(&text), ufw::has_ipv6(&text), firewalld::version(&text));
    let _ = (manager::flushes(&text), manager::rule_files(&text).count());
    let _ = (bindings::interfaces(&text), bindings::connection(&text, "interface-name", "zone"));
    let _ = (recovery::started(&text), recovery::program(Path::new(recovery::SYSTEMD.file), &text));
}

/// What the kernel prints in /proc and /sys, and files of the same kind.
pub fn proc_files(bytes: &[u8]) {
    let text = text(bytes);
    let mounts = mounts::parse(&text);
    for controller in [Controller::Memory, Controller::Cpu] {
        let _ = cgroup::hierarchies(controller, &text, &mounts);
    }
    let _ = memory::parse(&text);
    let _ = deep::parse(&text);
    let _ = port::cgroup::parse(&text);
    let _ = port::holder::parse_passwd(&text);
    let _ = process::parse_socket_link(&text);
    let _ = main_process::parse_stat(&text);
    let _ = conntrack::percent(&text, &text);
    let _ = host_container::container_variable(bytes);
}

pub fn sock_diag_answer(bytes: &[u8]) {
    let mut entries = Vec::new();
    let _ = sock_diag::parse_answer(bytes, &mut entries);
}

/// What the kernel answers about rules, sets, connections and interfaces: read, and a packet sent through it.
pub fn netfilter(bytes: &[u8]) {
    let _ = connections::parse(bytes);
    let _ = interfaces::outside(&interfaces::parse(bytes), &[]);
    let rules = nft::parse(bytes);
    let address =
        |v6: bool| IpAddr::from(if v6 { [0; 16] } else { [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1] });
    let interface = Interface { name: "eth0".into(), index: 2, addresses: vec![(address(false).to_canonical(), 24)] };
    for v6 in [false, true] {
        let way = Way { v6, protocol: Protocol::Tcp, port: 6379, interface: &interface, interfaces: &[] };
        let (destinations, sources) = (Ranges::new([(9, 9)]), Ranges::new([(10, 0xffff_ffff)]));
        let question = Question { rules: &rules, way, destinations, sources, prediction: None, forwarding: Some(true) };
        let trace = evaluate::evaluate(&question);
        let stopped = trace.stopped.iter().any(|(region, _)| !region.is_empty());
        assert!(stopped || !trace.passed.is_empty(), "a packet is lost");
    }
}

pub fn proc_net(bytes: &[u8]) {
    let text = text(bytes);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let _ = port::table::parse_proc(&text, protocol);
    }
}

/// The journal of a transaction, which a power cut may have torn: as it is, and sealed with right checksums and numbers,
/// so that what it says is looked at too.
pub fn journal(bytes: &[u8]) {
    let text = text(bytes);
    let _ = journal::parse(&text);
    let records = text.lines().filter_map(|line| serde_json::from_str::<journal::Record>(line).ok());
    let sealed: String =
        (0..).zip(records).filter_map(|(seq, record)| journal::line(&journal::Record { seq, ..record }).ok()).collect();
    if let Ok(journal) = journal::parse(&sealed) {
        let _ = (journal.tx(), Progress::of(&journal));
    }
}

/// `[version, info, containers, inspection]` as the engine answers them.
#[cfg(feature = "docker")]
pub fn docker_answers(bytes: &[u8]) {
    let Ok(parts) = serde_json::from_slice::<Vec<serde_json::Value>>(bytes) else { return };
    let mut parts = parts.into_iter();
    let mut next = || parts.next().unwrap_or_default();
    let (version, info) = (serde_json::from_value(next()), serde_json::from_value(next()));
    let summaries = serde_json::from_value::<Vec<ContainerSummary>>(next()).unwrap_or_default();
    let inspection = serde_json::from_value::<ContainerInspectResponse>(next()).unwrap_or_default();
    let mut containers: Vec<_> = summaries.into_iter().map(listed).collect();
    for container in &mut containers {
        inspected(container, inspection.clone());
        let _ = container.is_workload(&["redis".to_owned()]);
    }
    let wrong = |error: serde_json::Error| Failure::Answer(error.to_string());
    let answers = Answers {
        ping: answer(Ok(())),
        version: answer(version.map_err(wrong)),
        info: answer(info.map_err(wrong)),
        containers: answer(Ok(containers)),
        networks: Answer::failed(Failure::NotAsked),
    };
    let mut facts = Facts::default();
    answers::insert(
        &answers::Engine::new(&answers),
        &Ok((daemon::Daemon::default(), "daemon.json".into())),
        &mut facts,
    );
    assert!(!facts.is_empty());
}

#[cfg(feature = "docker")]
fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    Answer { result, took: Duration::ZERO }
}

/// daemon.json, config.json, a context's meta.json, containerd's config.toml, a dockerd command line, /proc/PID/limits,
/// what `docker-compose version` prints and its wrapper scripts.
#[cfg(feature = "docker")]
pub fn docker_files(bytes: &[u8]) {
    let text = text(bytes);
    let _ = process_limits::hard_limit(&text);
    let _ = daemon::parse(&text).map(|daemon| daemon.logs_are_bounded());
    let _ = daemon::parse_command_line(&text);
    let _ = endpoint::current_context(&text);
    let _ = endpoint::context_host(&text);
    let _ = endpoint::unix_path(&text);
    let _ = store::configured_root(&text);
    let _ = compose::parse_version(&text);
    let _ = compose::pinned_version(&text);
    let _ = compose::home_of(&text, "0");
}
