//! The threat model, one test per row that the running program can show. Rows shown elsewhere are named in
//! `docs/guarantees.md`.

use std::time::Duration;

use preflight::apply::journal::{Event, line, parse};
use preflight::facts::Layer;

use super::place::{self, DROP_IN, Place, TUNE};
use crate::support::process::{Ran, eventually, program};

/// Row 1, seen failing with `trust::only_root_writes` not asked in `library::read`: a profile, or a folder above it, that others can write decides nothing for root.
#[test]
fn root_does_not_believe_what_others_can_write() {
    for script in [
        "mkdir -p /etc/preflight/profiles.d; cat > $F; chmod 0666 $F",
        "mkdir -p /etc/preflight/profiles.d; cat > $F; chown 65534 $F",
        "mkdir -p /etc/preflight/profiles.d; cat > $F; chmod 0777 /etc/preflight/profiles.d",
        "mkdir -p /etc/preflight/profiles.d; cat > $F; chmod 0777 /etc/preflight",
        "mkdir -p /etc/preflight/profiles.d /run/theirs; cat > /run/theirs/x; chown 65534 /run/theirs; ln -s /run/theirs/x $F",
    ] {
        let place = Place::new();
        let profile = "printf 'name = \"evil\"\\ntitle = \"x\"\\nextends = \"redis-sentinel\"\\n'";
        let is_blamed = |words: &str| words.contains("belongs to user") || words.contains("can be written by");
        place.shell(&format!("F=/etc/preflight/profiles.d/evil.toml; {profile} | {{ {script}; }}"));
        let before = place.state();
        for args in [&["tune", "--profile", "evil"][..], &["tune", "--apply", "--profile", "evil"]] {
            let ran = place.run(args);
            assert!(ran.code == 2 && is_blamed(&ran.stderr), "{script}: {ran:?}");
            assert!(
                ran.stderr.contains("/etc/preflight") || ran.stderr.contains("/run/theirs"),
                "{script}: {}",
                ran.stderr
            );
        }
        assert_eq!(place.state(), before);
        // The file of a command line, too.
        let file = place.run(&["tune", "--apply", "--profile", "/etc/preflight/profiles.d/evil.toml"]);
        assert!(file.code == 2 && is_blamed(&file.stderr), "{script}: {file:?}");
    }
}

/// Row 2: a profile holds data. Whatever looks like a way to run something is an unknown key. Seen failing with
/// `Fields::finish` naming none.
#[test]
fn a_profile_cannot_run_anything() {
    let place = Place::new();
    for key in ["exec", "command", "script", "include", "shell"] {
        let text = format!("name = \"x\"\ntitle = \"x\"\n{key} = \"touch /run/canary\"\n");
        place.shell(&format!("cat > /run/x.toml <<'E'\n{text}E"));
        let ran = place.run(&["tune", "--apply", "--profile", "/run/x.toml"]);
        assert_eq!(ran.code, 2, "{key}: {ran:?}");
        assert!(ran.stderr.contains(key), "{}", ran.stderr);
    }
    place.shell("test ! -e /run/canary");
}

/// Rows 4 and 5: programs that wait in PATH, and variables that steer interpreters and loaders, are not heeded by
/// anything that an apply, its timer or a verify start. nft is what they start; it writes down its environment.
/// Seen failing with `tool::find` looking into that PATH first, and with the runner not emptying the environment.
#[test]
fn nothing_of_the_callers_surroundings_is_run() {
    let place = Place::new();
    place.shell(
        "mkdir /run/bin; for name in sysctl systemctl systemd-run docker docker-compose tuned-adm nft iptables ufw sh modprobe; do \
         printf '#!/bin/sh\\ntouch /run/canary\\n' > /run/bin/$name; chmod 755 /run/bin/$name; done; \
         echo 'open(\"/run/canary\", \"w\")' > /run/bin/sitecustomize.py; cp /run/bin/sitecustomize.py /run/bin/usercustomize.py
         cp /usr/sbin/nft /run/nft.real; printf '#!/bin/sh\nenv >> /run/environment\nexec /run/nft.real \"$@\"\n' > /run/nft
         chmod 755 /run/nft; mount --bind /run/nft /usr/sbin/nft",
    );
    // A guard is only needed where there is an outside.
    place.shell("ip link add out0 type veth peer name out1; ip addr add 192.0.2.1/24 dev out0; ip link set out0 up");
    let run = |args: &[&str]| {
        // By `env` inside: PATH also decides where the programs of this test are found.
        let mut command = place.command("env");
        command.args(["PATH=/run/bin:/usr/bin:/bin", "PYTHONPATH=/run/bin", "HOME=/run/bin", "DOCKER_CONFIG=/run/bin"]);
        command.args(["BASH_ENV=/run/bin/sh", "ENV=/run/bin/sh", "--chdir=/run/bin", program()]);
        command.args(args);
        Ran::from(command.output().unwrap())
    };
    let guard = ["--only", "firewall.guard", "--set", "allow=172.20.0.0/16"];
    let now = ["--apply", "--no-wait", "--confirm-within", "60s", "--settle", "0"];
    let apply: Vec<&str> = TUNE.iter().chain(&guard).chain(&now).copied().collect();
    for (args, code) in [
        (&["tune"][..], 0),
        (&apply, 7),
        (&["confirm", "--same-connection-ok"], 0),
        (&["verify"], 0),
        (&["rollback"], 0),
    ] {
        let ran = run(args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
    }
    place.shell("test ! -e /run/canary");
    let environment = place.shell("cat /run/environment");
    assert!(environment.contains("LC_ALL=C"), "nft was not run: {environment}");
    for name in ["PYTHONPATH", "DOCKER_CONFIG", "BASH_ENV", "ENV=", "/run/bin"] {
        assert!(!environment.contains(name), "{name}: {environment}");
    }
}

/// Row 6: a link in the place of our file, or of its folder, is not followed. (`safe_file_tests` has the race.) Seen failing
/// without `RESOLVE_NO_SYMLINKS` and `RESOLVE_BENEATH`.
#[test]
fn no_link_is_written_through() {
    for script in [
        "ln -s /etc/shadow /etc/sysctl.d/99-zz-preflight.conf",
        "mv /etc/sysctl.d /etc/real.d; mkdir -p /run/elsewhere; ln -s /run/elsewhere /etc/sysctl.d",
        "mkdir -p /run/elsewhere; ln -s /run/elsewhere /var/lib/preflight",
    ] {
        let place = Place::new();
        let shadow = place.shell("sha256sum < /etc/shadow");
        place.shell(script);
        let values = |place: &Place| (place.value(place::SOMAXCONN), place.value(place::BACKLOG));
        let before = values(&place);
        let ran = place.apply(&[]);
        assert!([2, 3, 4, 70].contains(&ran.code), "{script}: {ran:?}");
        assert_eq!(values(&place), before, "{script}");
        assert_eq!(place.shell("sha256sum < /etc/shadow"), shadow);
        assert_eq!(place.shell("ls -A /run/elsewhere 2> /dev/null || true"), "", "{script}");
    }
}

/// Row 10: the journal is root's alone, and nothing of the caller's environment or arguments stands in it. Seen failing with
/// the folder made 0755, and with `TOKEN` noted down as `SUDO_USER` is.
#[test]
fn the_journal_is_roots_and_holds_no_secret() {
    let place = Place::new();
    let mut command = place.preflight();
    command.args(TUNE).args(["--apply", "--settle", "0"]).env("REDIS_PASSWORD", "hunter2").env("TOKEN", "hunter2");
    assert!(command.output().unwrap().status.success());
    let modes = place.shell("find /var/lib/preflight -perm /077 -o ! -user root");
    assert_eq!(modes, "", "others can read these");
    assert!(!place.shell("cat /var/lib/preflight/tx/*/journal.jsonl").contains("hunter2"));
}

/// Rows 12 and 15: somebody else sees the plan, and can neither confirm nor take back nor read the state. Seen failing with
/// root not asked for: then only the modes of the files refuse.
#[test]
fn only_root_confirms_and_takes_back() {
    let place = Place::new();
    assert_eq!(place.apply(&["--no-wait", "--confirm-within", "60s"]).code, 7);
    let state = place.state();
    let nobody = |args: &[&str]| {
        let mut command = place.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program()]);
        Ran::from(command.args(args).output().unwrap())
    };
    for args in [
        &["confirm"][..],
        &["confirm", "--same-connection-ok"],
        &["rollback"],
        &["rollback", "--all"],
        &["recover"],
        &["tune", "--apply"],
        &["history"],
        &["verify"],
    ] {
        let ran = nobody(args);
        assert_eq!(ran.code, 3, "{args:?}: {ran:?}");
        let says_so = ran.stderr.contains("needs root");
        assert!(says_so || ["history", "verify"].contains(&args[0]), "{args:?}: {ran:?}");
    }
    assert_eq!(nobody(&["tune"]).code, 0);
    assert_eq!(place.state(), state);
    assert_eq!(place.newest_state(), "pending_confirm");
    assert_eq!(place.run(&["rollback"]).code, 0);
}

/// Rewrites the newest journal as whoever knows its format would: sound checksums, the same owner and mode.
fn forge(place: &Place, change: impl Fn(&mut Event)) {
    let path = place.shell("ls /var/lib/preflight/tx/*/journal.jsonl").trim().to_owned();
    let text = place.shell(&format!("cat {path}"));
    let mut records = parse(text.trim_end_matches('\0')).unwrap().records;
    for record in &mut records {
        change(&mut record.event);
    }
    let forged: String = records.iter().map(|record| line(record).unwrap()).collect();
    assert_ne!(forged.trim_end(), text.trim_end_matches('\0').trim_end(), "nothing was forged");
    place.shell(&format!("cat > {path} <<'E'\n{forged}E\nrm -f /var/lib/preflight/managed.json"));
}

/// A transaction that waits for its confirm, and one that was committed.
const FORGED_IN: [(&[&str], i32, &[&str]); 2] =
    [(&["--no-wait", "--confirm-within", "60s"], 7, &["confirm", "recover", "rollback"]), (&[], 0, &["rollback"])];

/// Row 16: a journal whose only fault is the path of its file is not carried out. Seen failing with any path taken for one
/// of ours in `ManagedFile::new`: the confirm wrote our text to /etc/passwd.
#[test]
fn a_forged_path_leads_nowhere() {
    for (how, code, verbs) in FORGED_IN {
        let place = Place::new();
        assert_eq!(place.apply(how).code, code);
        forge(&place, |event| match event {
            Event::Begin { steps, .. } => {
                let step = steps.iter_mut().find(|step| step.target == format!("file:{DROP_IN}")).unwrap();
                step.target = "file:/etc/passwd".into();
            }
            Event::PersistIntent(intent) if intent.target == format!("file:{DROP_IN}") => {
                intent.target = "file:/etc/passwd".into();
            }
            _ => {}
        });
        let before = (place.state(), place.shell("sha256sum < /etc/passwd"));
        for verb in verbs {
            let more: &[&str] = if *verb == "confirm" { &["--same-connection-ok"] } else { &[] };
            let ran = place.run(&[&[*verb], more].concat());
            let is_left = *verb == "recover" && ran.code == 0;
            assert!(is_left || ran.stderr.contains("is not something that preflight sets"), "{verb}: {ran:?}");
            assert_eq!((place.state(), place.shell("sha256sum < /etc/passwd")), before, "{verb}");
        }
    }
}

/// Row 16: a journal whose only fault is the layer of a step is not carried out. Seen failing with the layer not compared
/// in `session::resolve`: the confirm said `done` of a file that it did not write.
#[test]
fn a_forged_layer_leads_nowhere() {
    for (how, code, verbs) in FORGED_IN {
        let place = Place::new();
        assert_eq!(place.apply(how).code, code);
        forge(&place, |event| {
            if let Event::Begin { steps, .. } = event {
                let step = steps.iter_mut().find(|step| step.target == format!("file:{DROP_IN}")).unwrap();
                step.layer = Layer::Live;
            }
        });
        let before = place.state();
        for verb in verbs {
            let more: &[&str] = if *verb == "confirm" { &["--same-connection-ok"] } else { &[] };
            let ran = place.run(&[&[*verb], more].concat());
            assert!(ran.code != 0 && ran.stderr.contains("layer"), "{verb}: {ran:?}");
            assert_eq!(place.state(), before, "{verb}");
        }
    }
}

/// Row 16: a state that others can write is not believed, whatever stands in it: neither by those who change, nor by those
/// who only tell. Seen failing without `Store::audit` in `Machine::open`: `verify` found nothing to verify and said 0.
#[test]
fn a_state_that_others_can_write_is_not_believed() {
    for script in ["chmod 0777 $S", "chown 65534 $S", "chmod 0777 /var/lib"] {
        let place = Place::new();
        assert_eq!(place.apply(&[]).code, 0);
        let empty = r#"{"schema": "preflight.managed/1", "transactions": [], "knobs": {}}"#;
        place.shell(&format!("S=/var/lib/preflight; echo '{empty}' > $S/managed.json; {script}"));
        let before = place.state();
        let apply = [&TUNE[..], &["--apply", "--settle", "0"]].concat();
        for args in [&["verify"][..], &["history"], &["recover"], &["rollback"], &apply] {
            let ran = place.run(args);
            let why =
                ran.stderr.strip_prefix("error: cannot trust /var/lib").unwrap_or_else(|| panic!("{args:?}: {ran:?}"));
            assert!(ran.code == 3 && ran.stdout.is_empty(), "{script}: {args:?}: {ran:?}");
            assert_eq!(why.matches("writ").count() + why.matches("belongs").count(), 1, "said twice: {}", ran.stderr);
            assert_eq!(place.state(), before, "{script}: {args:?}");
        }
    }
}

/// Row 16: a journal that others could have written, by its own mode or owner, is not carried out, though its folder lets
/// nobody in now: it may have been open before. The summary is made anew. Seen failing without `Attributes::exposed` asked
/// in `Store::believe`.
#[test]
fn a_journal_that_others_could_have_written_is_not_believed() {
    for script in ["chmod 0666 $J", "chmod 0620 $J", "chown 65534 $J"] {
        let place = Place::new();
        assert_eq!(place.apply(&["--no-wait", "--confirm-within", "60s"]).code, 7);
        place.shell(&format!("J=$(ls /var/lib/preflight/tx/*/journal.jsonl); {script}"));
        let before = place.state();
        for args in [&["confirm", "--same-connection-ok"][..], &["rollback"], &["rollback", "--all"]] {
            let ran = place.run(args);
            assert!(ran.code == 3 && ran.stderr.contains("cannot trust /var/lib/preflight/tx/"), "{script}: {ran:?}");
            assert_eq!(place.state(), before, "{script}: {args:?}");
        }
        assert_eq!(place.run(&["verify"]).code, 3, "{script}");
        let history = place.run(&["history"]);
        assert!(history.stdout.contains("damaged") && history.stdout.contains("others than root"), "{history:?}");
        let plan = place.tune(&[]);
        assert!(plan.code == 0 && plan.stdout.contains("cannot be determined"), "{plan:?}");
        place.shell("chmod 0600 /var/lib/preflight/tx/*/journal.jsonl; chown 0 /var/lib/preflight/tx/*/journal.jsonl");
        assert_eq!(place.run(&["rollback"]).code, 0);
    }
    let place = Place::new();
    assert_eq!(place.apply(&[]).code, 0);
    let empty = r#"{"schema": "preflight.managed/1", "transactions": [], "knobs": {}}"#;
    place.shell(&format!("S=/var/lib/preflight; echo '{empty}' > $S/managed.json; chmod 0666 $S/managed.json"));
    let verified = place.run(&["verify", "--format", "json"]);
    assert_eq!(verified.json()["checked"], 4, "{verified:?}");
    assert_eq!(place.run(&["rollback"]).code, 0);
    // What is no folder at all is not "nothing".
    place.shell("rm -r /var/lib/preflight; echo > /var/lib/preflight");
    for verb in ["verify", "history", "rollback"] {
        let ran = place.run(&[verb]);
        assert!(ran.code == 3 && ran.stderr.contains("/var/lib/preflight"), "{verb}: {ran:?}");
    }
}

/// Row 17: values have bounds before they are planned. Seen failing without `Definition::admit`.
#[test]
fn absurd_values_are_refused() {
    let place = Place::new();
    for set in
        ["nofile=0", "nofile=99999999999999999999", "nofile=-1", "maxmemory=900TiB", "tcp_backlog=0", "thp=sometimes"]
    {
        // Only a setting of the namespace, should it be carried out.
        let ran = place.tune(&["--apply", "--set", set]);
        assert_eq!(ran.code, 2, "{set}: {ran:?}");
    }
}

/// Row 11: whoever answers on Docker's socket is only ever asked, never told. Seen failing with every request a POST.
#[test]
fn docker_is_only_asked() {
    let place = Place::new();
    place.shell("rm -rf /run/docker.sock");
    let log = "/run/requests";
    let server = format!(
        "import socket,threading\ns=socket.socket(socket.AF_UNIX)\ns.bind('/run/docker.sock')\ns.listen(50)\nf=open('{log}','ab',0)\n\
         def serve(c):\n  d=c.recv(65536)\n  f.write(d.split(b'\\r\\n')[0]+b'\\n')\n  c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nContent-Type: application/json\\r\\nConnection: close\\r\\n\\r\\n{{}}')\n  c.close()\n\
         while True:\n  threading.Thread(target=serve,args=(s.accept()[0],),daemon=True).start()\n"
    );
    let mut server: std::process::Child = place.command("python3").args(["-c", &server]).spawn().unwrap();
    eventually("the false engine listens", Duration::from_secs(10), || {
        place.command("test").args(["-S", "/run/docker.sock"]).status().unwrap().success()
    });
    let plan = place.run(&["tune", "--format", "json"]);
    let apply = place.apply(&[]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!((plan.code, apply.code), (0, 0), "{plan:?} {apply:?}");
    let requests = place.shell(&format!("cat {log}"));
    assert!(!requests.is_empty(), "nobody asked");
    assert!(
        requests
            .lines()
            .filter(|line| !line.is_empty())
            .all(|line| line.starts_with("GET ") || line.starts_with("HEAD ")),
        "{requests}"
    );
}
