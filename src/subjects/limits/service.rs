//! `limits.service-nofile.*`: the open-file limit of a service, as its process has it and as systemd will start it.
//!
//! systemd reads the unit file from the first folder that has it, and then the drop-ins of all folders in the order of
//! their names; the last assignment wins (systemd.unit(5), `unit_file_find_dropin_paths` in src/shared/dropin.c).

use std::time::Instant;

use crate::facts::{Fact, Facts, Layer, Value, service};
use crate::host::conf_dirs;
use crate::host::conf_dirs::Hidden;
use crate::host::main_process::{self, Unclear};
use crate::host::units::UNIT_FOLDERS;
use crate::host::{Host, ReadError};
use crate::subjects::context::Context;

const FAMILY: &str = "limits.service-nofile.";

/// Where systemd's own control groups begin, by the version and the layout of cgroups.
const GROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];

/// The hard limit where nothing sets one: `DefaultLimitNOFILE` is 1024:524288 since systemd 240 (systemd-system.conf(5)).
const DEFAULT_HARD: i64 = 524_288;

/// Gathers the limits of the services that the profile names.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    for name in cx.want.family(FAMILY) {
        let started = Instant::now();
        let boot = at_start(cx.host, name);
        let live = if !cx.host.is_live() {
            Fact::not_running("/proc/PID/limits")
        } else if !cx.host.exists(format!("{}/cgroup.procs", GROUPS[0])) && !cx.host.exists(GROUPS[1]) {
            let help = "mount /sys/fs/cgroup";
            Fact::unknown("without control groups nobody can tell whether it runs", Some(help), GROUPS[0])
        } else {
            // Whatever starts it next reads the same files as a boot.
            let idle = || boot.clone().note("it does not run; this is what its next start gets");
            running(cx.host, name).unwrap_or_else(idle)
        };
        facts.insert(format!("{FAMILY}{name}"), Layer::Boot, boot);
        facts.live(format!("{FAMILY}{name}"), live.took(started.elapsed()));
    }
}

/// The unit that an alias stands for: `redis.service` is a link to redis-server.service on Debian.
fn real(host: &Host, unit: &str) -> String {
    let link = UNIT_FOLDERS.iter().find_map(|folder| host.link_target(format!("{folder}/{unit}")));
    let name = link.as_deref().and_then(|target| target.file_name()).and_then(|name| name.to_str());
    name.filter(|name| name.ends_with(".service")).unwrap_or(unit).to_owned()
}

/// The limit of the service's main process; `None` when none runs.
fn running(host: &Host, name: &str) -> Option<Fact> {
    let unit = real(host, &service::unit(name));
    let folder = match group(host, &unit) {
        Ok(folder) => folder?,
        Err(error) => return Some(Fact::unreadable(&error, "it is gone")),
    };
    let program = files(host, &unit).ok().flatten().and_then(|files| program(&files));
    match main_process::nofile(host, &folder, program.as_deref()) {
        Ok(found) => found.map(|(pid, limit)| Fact::known(Value::Int(limit), format!("/proc/{pid}/limits"))),
        Err(unclear) => Some(unknown(unclear)),
    }
}

fn unknown(unclear: Unclear) -> Fact {
    match unclear {
        Unclear::Unreadable(error) => Fact::unreadable(&error, "it is gone"),
        Unclear::OtherNamespace { path } => Fact::unknown("its processes are of another process namespace", None, path),
        Unclear::NotUnderstood { path } => Fact::unknown("its open-file limit is not understood", None, path),
        Unclear::Several { shown, path } => {
            let why = format!("which of its processes is the main one cannot be determined: {}", shown.join(", "));
            Fact::unknown(why, Some("systemctl show -p MainPID"), path)
        }
    }
}

/// The service's control group. It need not be in system.slice: instances of a template are in a slice of their own there,
/// and a unit may name any.
fn group(host: &Host, unit: &str) -> Result<Option<String>, ReadError> {
    let mut pending: Vec<String> = GROUPS.map(str::to_owned).into();
    while let Some(folder) = pending.pop() {
        for name in host.list(&folder)?.iter().filter_map(|name| name.to_str()) {
            if name == unit {
                return Ok(Some(format!("{folder}/{name}")));
            }
            if name.ends_with(".slice") {
                pending.push(format!("{folder}/{name}"));
            }
        }
    }
    Ok(None)
}

/// The limit that systemd gives the service at its next start.
fn at_start(host: &Host, name: &str) -> Fact {
    let unit = service::unit(name);
    match decide(host, &unit) {
        Ok(Some((limit, source))) => Fact::known(Value::Int(limit), source),
        Ok(None) => Fact::absent(format!("there is no service {unit} here"), UNIT_FOLDERS[0]),
        Err(error) => Fact::unreadable(&error, "it is gone"),
    }
}

fn decide(host: &Host, unit: &str) -> Result<Option<(i64, String)>, ReadError> {
    let Some(files) = files(host, unit)? else { return Ok(None) };
    let lines = files.iter().flat_map(|(path, text)| assignments(text).map(move |(line, limit)| (path, line, limit)));
    let winner = lines.last().map(|(path, line, limit)| (limit, format!("{path}:{line}")));
    winner.map_or_else(|| default(host), Ok).map(Some)
}

/// A unit's file and its drop-ins, in the order in which they count; `None` when there is no such unit, or it is masked.
fn files(host: &Host, unit: &str) -> Result<Option<Vec<(String, String)>>, ReadError> {
    // An instance is made from its template: redis@6380.service from redis@.service.
    let template = unit.split_once('@').map(|(prefix, _)| format!("{prefix}@.service"));
    // Drop-ins count under every name that a unit has.
    let real = real(host, unit);
    let mut names: Vec<&str> = vec![unit];
    names.extend(Some(real.as_str()).filter(|real| *real != unit));
    names.extend(template.as_deref());
    let mut file = None;
    'found: for name in &names {
        for folder in UNIT_FOLDERS {
            let path = format!("{folder}/{name}");
            if host.link_target(&path).is_some_and(|target| target.as_os_str() == "/dev/null") {
                return Ok(None);
            }
            if let Some(text) = host.read_optional(&path)? {
                file = Some((path, text));
                break 'found;
            }
        }
    }
    // An empty file is a mask, too.
    let Some(file) = file.filter(|(_, text)| !text.trim().is_empty()) else { return Ok(None) };
    let mut files = vec![file];
    // redis-server.service also reads redis-.service.d, and every service service.d.
    let stems: Vec<String> = names.iter().flat_map(|name| with_prefixes(name)).collect();
    let of_unit = UNIT_FOLDERS.iter().flat_map(|folder| stems.iter().map(move |stem| format!("{folder}/{stem}.d")));
    let of_all = UNIT_FOLDERS.iter().map(|folder| format!("{folder}/service.d"));
    let folders: Vec<String> = of_unit.chain(of_all).collect();
    for file in conf_dirs::read(host, &folders, Hidden::Skipped)? {
        files.push((file.path, file.text?));
    }
    Ok(Some(files))
}

/// The name of the program that a unit starts; an empty line takes back those before it (systemd.service(5)).
fn program(files: &[(String, String)]) -> Option<String> {
    let mut found = None;
    for (_, text) in files {
        for (_, value) in lines(text, "Service", "ExecStart") {
            let path = value.trim_start_matches(['@', '-', ':', '+', '!', '|']).trim_start_matches('"');
            let path = path.split([' ', '\t', '"']).next().unwrap_or_default();
            found = path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned);
        }
    }
    found
}

/// A unit's name, and the names that its drop-ins may have after its dashes.
fn with_prefixes(unit: &str) -> Vec<String> {
    let mut names = vec![unit.to_owned()];
    let mut stem = unit.trim_end_matches(".service");
    while let Some(dash) = stem.trim_end_matches('-').rfind('-') {
        stem = &stem[..=dash];
        names.push(format!("{stem}.service"));
    }
    names
}

/// What services get that say nothing: system.conf and its drop-ins.
fn default(host: &Host) -> Result<(i64, String), ReadError> {
    let main = "/etc/systemd/system.conf";
    let mut found = (DEFAULT_HARD, "systemd's own default".to_owned());
    let mut take = |path: &str, text: &str| {
        let key = "DefaultLimitNOFILE";
        if let Some((line, limit)) = settings(text, "Manager", key).last() {
            found = (limit, format!("{path}:{line}"));
        }
    };
    take(main, &host.read_optional(main)?.unwrap_or_default());
    for file in conf_dirs::read(host, &conf_dirs::directories(host, "systemd/system.conf.d"), Hidden::Skipped)? {
        take(&file.path, &file.text?);
    }
    Ok(found)
}

/// The lines of a unit file that set the hard limit, with their numbers. What systemd does not understand it ignores, an
/// empty value too: `systemd-analyze verify` says so.
pub fn assignments(text: &str) -> impl Iterator<Item = (usize, i64)> {
    settings(text, "Service", "LimitNOFILE")
}

fn settings<'a>(text: &'a str, section: &'a str, key: &'a str) -> impl Iterator<Item = (usize, i64)> + use<'a> {
    lines(text, section, key).filter_map(|(line, value)| Some((line, hard(value)?)))
}

/// The lines of a section that set a key, with their numbers.
fn lines<'a>(text: &'a str, section: &'a str, key: &'a str) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            inside = name.strip_suffix(']') == Some(section);
            return None;
        }
        let (name, value) = line.split_once('=').filter(|_| inside)?;
        (name.trim() == key).then(|| (index + 1, value.trim()))
    })
}

/// The hard part of `65535`, `1024:524288` or `infinity`; none where systemd would ignore it.
fn hard(value: &str) -> Option<i64> {
    let one = |text: &str| match text {
        "infinity" => Some(i64::MAX),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<i64>().ok(),
        _ => None,
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (one(soft)?, one(hard)?);
    (soft <= hard).then_some(hard)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decided(files: &[(&str, &str)]) -> Option<(i64, String)> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        decide(&Host::at_root(root.path()), "redis-server.service").unwrap()
    }

    const UNIT: (&str, &str) = ("/usr/lib/systemd/system/redis-server.service", "[Service]\nLimitNOFILE=65535\n");

    #[test]
    fn the_last_drop_in_by_name_wins_whatever_its_folder() {
        let own = ("/etc/systemd/system/redis-server.service.d/10.conf", "[Service]\nLimitNOFILE=1024:4096\n");
        let late = ("/run/systemd/system/redis-server.service.d/99-zzz.conf", "[Service]\nLimitNOFILE=infinity\n");
        assert_eq!(decided(&[UNIT]).unwrap().0, 65535);
        assert_eq!(decided(&[UNIT, own]).unwrap(), (4096, format!("{}:2", own.0)));
        assert_eq!(decided(&[UNIT, own, late]).unwrap(), (i64::MAX, format!("{}:2", late.0)));
        // The same name in /etc hides the one in /run.
        let mask = ("/etc/systemd/system/redis-server.service.d/99-zzz.conf", "");
        assert_eq!(decided(&[UNIT, own, late, mask]).unwrap().0, 4096);
    }

    #[test]
    fn drop_ins_of_the_prefix_and_of_all_services_count() {
        let prefix = ("/etc/systemd/system/redis-.service.d/20.conf", "[Service]\nLimitNOFILE=2000\n");
        let all = ("/etc/systemd/system/service.d/30.conf", "[Service]\nLimitNOFILE=3000\n");
        assert_eq!(decided(&[UNIT, prefix]).unwrap().0, 2000);
        assert_eq!(decided(&[UNIT, prefix, all]).unwrap().0, 3000);
    }

    #[test]
    fn without_a_line_the_default_holds_and_without_a_unit_there_is_no_service() {
        let bare = (UNIT.0, "[Service]\nExecStart=/bin/true\n[Install]\nLimitNOFILE=5\n");
        assert_eq!(decided(&[bare]).unwrap(), (DEFAULT_HARD, "systemd's own default".into()));
        let main = ("/etc/systemd/system.conf", "[Manager]\nDefaultLimitNOFILE=1024:9000\n");
        assert_eq!(decided(&[bare, main]).unwrap(), (9000, "/etc/systemd/system.conf:2".into()));
        assert_eq!(decided(&[main]), None);
    }

    /// As `systemd-analyze verify` of systemd 252 says of each: "ignoring". Seen failing with an empty value as a reset.
    #[test]
    fn what_systemd_ignores_changes_nothing() {
        for value in ["", "abc", "64K", "10:5", "5:x", "1024:", ":5", "-1", "+5"] {
            let text = format!("[Service]\nLimitNOFILE={value}\n");
            let late = ("/etc/systemd/system/redis-server.service.d/1.conf", text.as_str());
            assert_eq!(decided(&[UNIT, late]).unwrap().0, 65535, "{value:?}");
        }
    }

    /// Seen failing with only system.slice looked into.
    #[test]
    fn a_service_is_found_in_whatever_slice_it_is() {
        for folder in [
            "sys/fs/cgroup/system.slice",
            "sys/fs/cgroup/systemd/system.slice/system-redis.slice",
            "sys/fs/cgroup/my.slice",
        ] {
            let root = tempfile::tempdir().unwrap();
            let group_of = root.path().join(folder).join("redis@6380.service");
            std::fs::create_dir_all(&group_of).unwrap();
            std::fs::write(group_of.join("cgroup.procs"), "70\n71\n").unwrap();
            std::fs::create_dir_all(root.path().join("proc/70")).unwrap();
            let limits = "Max open files            1024                 4096                 files     \n";
            std::fs::write(root.path().join("proc/70/limits"), limits).unwrap();
            let stat = "70 (redis-server) S 1 1 1 0 -1 0 1 1 1 1 1 1 1 1 20 0 1 0 4711 1";
            std::fs::write(root.path().join("proc/70/stat"), stat).unwrap();
            let host = Host::at_root(root.path());
            let fact = running(&host, "redis@6380").unwrap_or_else(|| panic!("not found in {folder}"));
            assert_eq!(fact.value(), Some(&Value::Int(4096)), "{folder}");
            assert_eq!(running(&host, "redis@6381"), None);
            // A service that was handed its group over has its processes in groups below.
            std::fs::write(group_of.join("cgroup.procs"), "").unwrap();
            assert_eq!(running(&host, "redis@6380"), None);
            std::fs::create_dir(group_of.join("main")).unwrap();
            std::fs::write(group_of.join("main/cgroup.procs"), "70\n").unwrap();
            assert_eq!(running(&host, "redis@6380").unwrap().value(), Some(&Value::Int(4096)));
        }
    }

    /// Seen failing without `real`, and with the prefixes of the alias only; without the look for empty text, the mask is a
    /// service.
    #[test]
    fn an_alias_is_its_unit_and_a_masked_unit_is_none() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(UNIT.0, UNIT.1);
        write("/etc/systemd/system/redis-server.service.d/10.conf", "[Service]\nLimitNOFILE=4096\n");
        let etc = root.path().join("etc/systemd/system");
        std::os::unix::fs::symlink(UNIT.0, etc.join("redis.service")).unwrap();
        std::os::unix::fs::symlink("/dev/null", etc.join("masked.service")).unwrap();
        write("/usr/lib/systemd/system/masked.service", UNIT.1);
        write("/etc/systemd/system/empty.service", "\n");
        let host = Host::at_root(root.path());
        assert_eq!(decide(&host, "redis.service").unwrap().unwrap().0, 4096);
        write("/etc/systemd/system/redis-.service.d/20.conf", "[Service]\nLimitNOFILE=2000\n");
        assert_eq!(decide(&host, "redis.service").unwrap().unwrap().0, 2000);
        assert_eq!(decide(&host, "masked.service").unwrap(), None);
        assert_eq!(decide(&host, "empty.service").unwrap(), None);
    }

    #[test]
    fn the_program_is_the_last_that_is_started() {
        let of = |texts: &[&str]| {
            program(&texts.iter().map(|text| (String::new(), format!("[Service]\n{text}\n"))).collect::<Vec<_>>())
        };
        assert_eq!(of(&["ExecStart=@-/usr/bin/redis-server redis /etc/redis.conf"]).as_deref(), Some("redis-server"));
        assert_eq!(of(&["ExecStart=/bin/a", "ExecStart=\nExecStart=\"/opt/b\" x"]).as_deref(), Some("b"));
        assert_eq!(of(&["ExecStart=/bin/a", "ExecStart="]), None);
        assert_eq!(of(&["Restart=always"]), None);
    }

    proptest! {
        #[test]
        fn any_unit_file_is_read(text in "(?s).{0,200}|(\\[Service\\]\n)?(LimitNOFILE=[0-9a-z:]{0,22}\n){0,4}") {
            program(&[(String::new(), text.clone())]);
            for (_, limit) in assignments(&text) {
                prop_assert!(limit >= 0);
            }
        }
    }
}
