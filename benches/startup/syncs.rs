//! How often an apply and its rollback wait for the disk, as strace sees it, against the bar of the journal: two waits for
//! a change and eight for the transaction. In namespaces of their own, so that the machine stays as it is.

use crate::place::{Place, TUNE};
use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::measure::Bench;

const WHAT: &str = "syncs";
const CALLS: &str = "trace=fsync,fdatasync,sync_file_range,syncfs,sync";
const AT_ONCE: [&str; 6] = ["--apply", "--settle", "0", "--confirm-within", "0", "--format=json"];

/// Settings of a network namespace, each with a value that no kernel starts with.
const MANY: [(&str, u32); 12] = [
    ("tcp_keepalive_time", 111),
    ("tcp_keepalive_intvl", 11),
    ("tcp_keepalive_probes", 7),
    ("tcp_fin_timeout", 31),
    ("tcp_syn_retries", 4),
    ("tcp_synack_retries", 4),
    ("tcp_retries1", 4),
    ("tcp_retries2", 13),
    ("tcp_reordering", 5),
    ("tcp_max_syn_backlog", 4097),
    ("ip_default_ttl", 63),
    ("tcp_notsent_lowat", 65536),
];

const IMAGE: &str = "mkdir -p /run/image/etc/sysctl.d /run/image/etc/tmpfiles.d /run/image/var/lib; printf 'ID=debian\\nVERSION_ID=\"12\"\\n' > /run/image/etc/os-release";
/// Nothing is there yet, as where an image is begun from a folder.
const BARE: &str = "mkdir -p /run/bare/etc; cp /run/image/etc/os-release /run/bare/etc";
const SERVICE: &str =
    "printf '[Service]\\nExecStart=/bin/true\\nLimitNOFILE=1024\\n' > /etc/systemd/system/bench.service";

pub(crate) fn compare(bench: &mut Bench) {
    if !nix::unistd::geteuid().is_root() {
        bench.not_run(WHAT, "needs root for namespaces of its own");
        return;
    }
    let place = Place::new();
    place.shell(&format!("{IMAGE}; {BARE}; {SERVICE}; cat > /run/bench.toml <<'E'\n{}E", profile()));
    let services = "services=bench.service";
    let many = ["tune", "--profile", "/run/bench.toml", "--only", "bench.*", "--only", "limits.service-nofile"];
    let many = [&many[..], &["--set", "topology=host", "--set", services]].concat();
    let plans: [(&str, Vec<&str>, &[&str]); 4] = [
        ("an image", vec!["tune"], &["--root", "/run/image"]),
        ("a bare image", vec!["tune", "--only", "kernel.swappiness"], &["--root", "/run/bare"]),
        ("settings and their file", TUNE.to_vec(), &[]),
        ("many settings and two files", many, &[]),
    ];
    for (name, tune, at) in &plans {
        for (verb, arguments) in
            [("apply", [tune, &AT_ONCE[..]].concat()), ("rollback", vec!["rollback", "--format=json"])]
        {
            match count(bench, &place, &[&arguments[..], at].concat()) {
                Ok((syncs, changes)) => {
                    let bar = 2 * changes + 8;
                    let value = format!("{syncs} syncs, {changes} changes");
                    let what = format!("{WHAT}: {name}, {verb}");
                    bench.figure(&what, &value, &format!("≤ {bar}"), Some(syncs <= bar));
                }
                Err(error) => bench.not_run(&format!("{WHAT}: {name}, {verb}"), &format!("{error:#}")),
            }
        }
    }
}

/// The syncs of a run, and how many changes it made.
fn count(bench: &Bench, place: &Place, arguments: &[&str]) -> Result<(usize, usize)> {
    let mut command = place.command("strace");
    command.args(["-f", "-qq", "-e", CALLS, "-o", "/run/syncs"]).arg(&bench.binary).args(arguments);
    let output = command.output()?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let said: Value = serde_json::from_slice(&output.stdout).context("its JSON")?;
    let outcome = if said.is_array() { &said[0] } else { &said };
    let changes = outcome["changes"].as_array().context("its changes")?.len();
    if changes == 0 {
        bail!("there was nothing to change");
    }
    let syncs = place.shell("cat /run/syncs").lines().filter(|line| line.contains("sync")).count();
    Ok((syncs, changes))
}

fn profile() -> String {
    let head = "name = \"bench\"\ntitle = \"bench\"\nabout = \"bench\"\nextends = \"redis-sentinel\"\n".to_owned();
    MANY.iter().fold(head, |text, (setting, value)| {
        let id = setting.replace('_', "-");
        format!(
            "{text}[[check]]\nid = \"bench.{id}\"\ntitle = \"{id}\"\nfact = \"sysctl.net.ipv4.{setting}\"\n\
             pass = {{ equals = {value} }}\nseverity = \"recommended\"\nwhy = \"measured\"\nfix = \"none\"\n\
             sources = [\"none\"]\ndated = \"2026-11-22\"\ntune = {{ to = {value} }}\n"
        )
    })
}
