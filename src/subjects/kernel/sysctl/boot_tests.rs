use super::*;
use crate::facts::State;
use crate::subjects::kernel::tuned;

fn sources(files: &[(&str, &str)]) -> Sources {
    let loader = SysctlLoader::Systemd;
    Sources {
        loader,
        loader_off: None,
        files: files.iter().map(|(path, text)| SettingsFile::parse(*path, text, loader)).collect(),
        unreadable: Vec::new(),
        command_line: String::new(),
        tuned: Ok(None),
        reapplied: Vec::new(),
        kernel: Version::parse("6.1").ok(),
        tcp_ehash_entries: Some("262144".into()),
    }
}

fn with_tuned(mut sources: Sources, profile: &str) -> Sources {
    let read = |path: &str| Ok((path == "/etc/tuned/p/tuned.conf").then(|| profile.to_owned()));
    sources.tuned = Ok(Some(tuned::resolve("p", &read).unwrap()));
    sources
}

fn shown(fact: &Fact) -> String {
    match &fact.state {
        State::Known(value) => format!("{value} {}", fact.source),
        State::Absent(why) => format!("absent: {why}"),
        State::Unknown { error, .. } => format!("unknown: {error}"),
    }
}

fn boot(sources: &Sources, key: &str) -> String {
    shown(&decide(sources, key, None))
}

#[test]
fn a_file_then_the_kernel_then_nothing() {
    let sources =
        sources(&[("/etc/sysctl.d/a.conf", "vm.swappiness=10\n"), ("/etc/sysctl.d/b.conf", "vm.swappiness=0xa\n")]);
    let fact = decide(&sources, "vm.swappiness", None);
    assert_eq!(shown(&fact), "10 /etc/sysctl.d/b.conf:1");
    assert_eq!(fact.note.as_deref(), Some("overrides `10` of /etc/sysctl.d/a.conf:1"));
    assert_eq!(boot(&sources, "vm.overcommit_memory"), "0 kernel default");
    assert_eq!(boot(&sources, "net.ipv4.tcp_max_syn_backlog"), "2048 kernel default");
    assert_eq!(boot(&sources, "vm.unheard_of"), "absent: no file sets it and its default is not known");
}

#[test]
fn the_command_line_comes_before_the_files() {
    let mut sources = sources(&[]);
    sources.command_line = "quiet sysctl.vm.swappiness=1 sysctl.vm.swappiness=5 sysctl.net/core/somaxconn=7".into();
    assert_eq!(boot(&sources, "vm.swappiness"), "5 /proc/cmdline");
    assert_eq!(boot(&sources, "net.core.somaxconn"), "7 /proc/cmdline");
    sources.files.push(SettingsFile::parse("/f", "vm.swappiness=10", SysctlLoader::Systemd));
    assert_eq!(boot(&sources, "vm.swappiness"), "10 /f:1");
}

#[test]
fn a_refused_value_is_named_and_changes_nothing() {
    let sources = sources(&[("/f", "vm.overcommit_memory=yes\n")]);
    let fact = decide(&sources, "vm.overcommit_memory", None);
    assert_eq!(shown(&fact), "0 kernel default");
    assert!(fact.note.unwrap().contains("the kernel refuses `yes` in /f:1"));
}

#[test]
fn an_unreadable_file_hides_what_it_could_decide() {
    let mut sources = sources(&[("/a", ""), ("/b", "vm.swappiness=10\nnet.core.*=5\n")]);
    sources.unreadable = vec![(0, "cannot read /a: permission denied".into())];
    assert_eq!(boot(&sources, "vm.swappiness"), "10 /b:2".replace(":2", ":1"));
    assert_eq!(boot(&sources, "vm.overcommit_memory"), "unknown: cannot read /a: permission denied");
    assert_eq!(boot(&sources, "net.core.somaxconn"), "unknown: cannot read /a: permission denied");
    sources.unreadable = vec![(2, "cannot read /c: permission denied".into())];
    assert_eq!(boot(&sources, "vm.swappiness"), "unknown: cannot read /c: permission denied");
}

#[test]
fn tuned_comes_after_the_files_unless_it_reapplies_them() {
    let text = "vm.swappiness=60\nnet.core.somaxconn=4096\n";
    let mut sources = with_tuned(
        sources(&[("/usr/lib/sysctl.d/a.conf", text)]),
        "[sysctl]\nvm.swappiness=10\nnet.core.somaxconn=>2048\nnet.ipv4.tcp_fin_timeout=<30\n",
    );
    let fact = decide(&sources, "vm.swappiness", None);
    assert_eq!(shown(&fact), "10 /etc/tuned/p/tuned.conf:2");
    assert_eq!(fact.note.as_deref(), Some("tuned's profile `p` sets it after the boot files"));
    assert_eq!(boot(&sources, "net.core.somaxconn"), "4096 /usr/lib/sysctl.d/a.conf:2");
    assert_eq!(boot(&sources, "net.ipv4.tcp_fin_timeout"), "30 /etc/tuned/p/tuned.conf:4");
    sources.reapplied = vec![SettingsFile::parse("/etc/sysctl.d/z.conf", "vm.swappiness=1", SysctlLoader::Systemd)];
    assert_eq!(boot(&sources, "vm.swappiness"), "1 /etc/sysctl.d/z.conf:1");
}

#[test]
fn a_value_that_only_tuned_knows_is_unknown_for_its_keys_only() {
    let sources = with_tuned(sources(&[]), "[sysctl]\nvm.swappiness=${f:exec:x}\n");
    assert!(boot(&sources, "vm.swappiness").starts_with("unknown: "));
    assert_eq!(boot(&sources, "vm.overcommit_memory"), "0 kernel default");
}

#[test]
fn files_that_no_service_applies_do_not_count() {
    let mut sources = sources(&[("/f", "vm.swappiness=10\n")]);
    sources.loader_off = Some("the sysctl service is in no runlevel".into());
    let fact = decide(&sources, "vm.swappiness", None);
    assert_eq!(shown(&fact), "60 kernel default");
    assert_eq!(fact.note.as_deref(), Some("no file sets it; the sysctl service is in no runlevel"));
}

#[test]
fn nr_open_is_what_systemd_makes_of_it() {
    let mut sources = sources(&[]);
    let boot = |sources: &Sources, live: i64| shown(&decide(sources, "fs.nr_open", Some(&Value::Int(live))));
    assert_eq!(boot(&sources, 1_048_576), "1048576 kernel default");
    assert_eq!(boot(&sources, 1_073_741_816), "1073741816 systemd's default");
    assert!(boot(&sources, 5_000_000).starts_with("absent"));
    sources.loader = SysctlLoader::Procps;
    assert_eq!(boot(&sources, 5_000_000), "1048576 kernel default");
}

#[test]
fn containers_get_the_default_where_a_new_namespace_does() {
    let kernel = Version::parse("4.18").ok();
    let fact = predicted_in_container("net.core.somaxconn", kernel.as_ref(), None).unwrap();
    assert_eq!(fact.value(), Some(&Value::Int(128)));
    assert!(fact.note.unwrap().starts_with("predicted"));
    let fact = predicted_in_container("net.ipv4.tcp_max_syn_backlog", kernel.as_ref(), None).unwrap();
    assert_eq!(fact.value(), Some(&Value::Int(128)));
    assert!(fact.note.unwrap().contains("at least this"), "the machine's memory is not known");
    assert_eq!(predicted_in_container("net.ipv4.ip_forward", kernel.as_ref(), None), None);
    assert_eq!(predicted_in_container("net.ipv4.unheard_of", kernel.as_ref(), None), None);
}

#[test]
fn tuned_bounds() {
    let of = |value: &str, current: i64| at_least_or_most(value, Some(&Value::Int(current)));
    assert_eq!(of(">5", 4).as_deref(), Some("5"));
    assert_eq!((of(">5", 5), of(">5", 6), of("<5", 5), of("<5", 4)), (None, None, None, None));
    assert_eq!(of("<5", 6).as_deref(), Some("5"));
    assert_eq!(of("7", 6).as_deref(), Some("7"));
    assert_eq!(of(">", 6).as_deref(), Some(">"));
    assert_eq!(at_least_or_most(">5", None).as_deref(), Some("5"));
}
