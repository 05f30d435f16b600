//! tuned: which settings its active profile makes after the boot files were applied, and whether it runs at all.
//!
//! As `tuned/profiles/{loader,merger,locator}.py` do: a profile is merged over those it includes, section by section; a
//! section's type is its name unless `type=` says otherwise.

use std::path::Path;
use std::sync::Arc;

use super::tuned_profile::{self, Unit};
use crate::host::units::BootFolders;
use crate::host::{Host, ReadError};

/// Where profiles are looked for, first hit wins. Releases since 2.23 have `profiles` folders of their own.
const PROFILE_DIRECTORIES: [&str; 4] =
    ["/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"];

/// One thing that tuned sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tune {
    /// As the profile names it.
    pub key: String,
    /// The value, or why it cannot be determined.
    pub value: Result<String, String>,
    /// `/usr/lib/tuned/virtual-guest/tuned.conf:12`.
    pub at: String,
}

/// What tuned will do at boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuned {
    /// The active profile, with the post-loaded one.
    pub profile: String,
    /// `[sysctl]` sections and the kernel settings of `[vm]` sections.
    pub sysctls: Vec<Tune>,
    /// `transparent_hugepages` of `[vm]` sections.
    pub huge_pages: Vec<Tune>,
    /// `transparent_hugepage.defrag` of `[vm]` sections.
    pub defrag: Vec<Tune>,
    /// `reapply_sysctl`: /run, /etc sysctl.d and sysctl.conf win over the profile. On by default.
    pub reapply: bool,
    /// Why the profile is not known, if so.
    pub problem: Option<String>,
    /// With a problem: the text of every installed profile without lines of comment, to tell what tuned might set.
    might: Arc<str>,
}

impl Tuned {
    /// Whether a profile that is not known might set this: whether any installed profile names it.
    pub fn might_set(&self, name: &str) -> bool {
        self.problem.is_some() && self.might.contains(name)
    }
}

/// What tuned does on this host; `None` when it is not there or does not start.
pub fn load<B: std::borrow::Borrow<BootFolders>>(
    host: &Host,
    boot: impl FnOnce() -> B,
) -> Result<Option<Tuned>, ReadError> {
    if !host.exists("/etc/tuned") || !starts(host, boot().borrow()) {
        return Ok(None);
    }
    let optional = |path: &str| host.read_optional(path).map(Option::unwrap_or_default);
    let reapply = reapplies(&optional("/etc/tuned/tuned-main.conf")?);
    let names = format!("{} {}", optional("/etc/tuned/active_profile")?, optional("/etc/tuned/post_loaded_profile")?);
    let mut tuned = resolve(&names, &|path| host.read_optional(path))?;
    tuned.reapply = reapply;
    if tuned.problem.is_some() {
        tuned.might = every_profile(host)?.into();
    }
    Ok(Some(tuned))
}

/// [`load`] for one that asks nothing else of the boot.
pub fn load_alone(host: &Host) -> Result<Option<Tuned>, ReadError> {
    load(host, || BootFolders::read(host))
}

/// Enabled at boot, or running now.
fn starts(host: &Host, boot: &BootFolders) -> bool {
    let is_masked =
        || host.link_target("/etc/systemd/system/tuned.service").is_some_and(|to| to == Path::new("/dev/null"));
    boot.start(host, "tuned") || (host.exists("/run/tuned/tuned.pid") && !is_masked())
}

/// `reapply_sysctl` of tuned-main.conf, on unless said otherwise.
fn reapplies(main: &str) -> bool {
    let value = tuned_profile::parse_flat(main).into_iter().rfind(|option| option.key == "reapply_sysctl");
    value.is_none_or(|option| !matches!(option.value.to_lowercase().as_str(), "0" | "no" | "false" | "off"))
}

/// Whether tuned-main.conf has tuned look for profiles in folders of somebody's choice.
pub fn has_own_directories(main: &str) -> bool {
    tuned_profile::parse_flat(main).iter().any(|option| option.key == "profile_dirs" && !option.value.is_empty())
}

/// Everything from which tuned's choice can be told: its own files, and all profiles.
pub fn files(host: &Host) -> Vec<String> {
    let own = ["active_profile", "profile_mode", "post_loaded_profile", "tuned-main.conf"];
    let mut paths: Vec<String> = own.iter().map(|name| format!("/etc/tuned/{name}")).collect();
    for directory in PROFILE_DIRECTORIES {
        let names = host.list(directory).unwrap_or_default();
        paths.extend(names.iter().filter_map(|name| Some(format!("{directory}/{}/tuned.conf", name.to_str()?))));
    }
    paths
}

fn every_profile(host: &Host) -> Result<String, ReadError> {
    let mut text = String::new();
    for directory in PROFILE_DIRECTORIES {
        for name in host.list(directory)? {
            let path = Path::new(directory).join(name).join("tuned.conf");
            // What a comment names is not set by it, and comments are the larger part.
            let profile = host.read_optional(path)?.unwrap_or_default();
            for line in profile.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
                text.extend([line, "\n"]);
            }
        }
    }
    Ok(text)
}

/// Reads a file; `None` when there is none.
type Read<'a> = dyn Fn(&str) -> Result<Option<String>, ReadError> + 'a;

/// Resolves profile names (blank separated) with everything they include.
pub fn resolve(names: &str, read: &Read<'_>) -> Result<Tuned, ReadError> {
    let safe = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    let names: Vec<&str> = names.split_whitespace().filter(safe).collect();
    let mut tuned = Tuned { profile: names.join(" "), reapply: true, ..Tuned::default() };
    let mut units: Vec<Unit> = Vec::new();
    let mut walk = Walk { read, seen: Vec::new() };
    let outcome = if names.is_empty() {
        Ok(Err("tuned has no active profile yet and will choose one when it starts".to_owned()))
    } else {
        walk.profiles(&names, &mut units, 0)
    };
    if let Err(problem) = outcome? {
        tuned.problem = Some(problem);
        return Ok(tuned);
    }
    let variables = tuned_profile::Variables::of(&units, &mut |path| read(path).ok().flatten());
    for unit in units.iter().filter(|unit| unit.is_enabled()) {
        for option in &unit.options {
            let tune = || Tune {
                key: option.key.clone(),
                value: unit.condition().and_then(|()| variables.expand(&option.value)),
                at: option.at.clone(),
            };
            match (unit.kind(), option.key.as_str()) {
                _ if unit.never() => {}
                ("sysctl", _) => tuned.sysctls.push(tune()),
                // Since 2.25, under a name of their own.
                ("vm", name) if name.starts_with("dirty_") => {
                    let share = |value: String| match value.strip_suffix('%') {
                        Some(_) => Err(format!("tuned sets {name} to {value}, a share of the memory")),
                        None => Ok(value),
                    };
                    let Tune { key, value, at } = tune();
                    tuned.sysctls.push(Tune { key: format!("vm.{key}"), value: value.and_then(share), at });
                }
                ("vm", "transparent_hugepages" | "transparent_hugepage") => tuned.huge_pages.push(tune()),
                ("vm", "transparent_hugepage.defrag") => tuned.defrag.push(tune()),
                _ => {}
            }
        }
    }
    Ok(tuned)
}

/// How deep profiles may include each other; each file is read once, so this only bounds the stack.
const MAX_DEPTH: usize = 64;

struct Walk<'a> {
    read: &'a Read<'a>,
    seen: Vec<String>,
}

impl Walk<'_> {
    /// Merges the profiles over `units`, each after what it includes. The inner error says why tuned's profile cannot be determined.
    fn profiles(
        &mut self,
        names: &[&str],
        units: &mut Vec<Unit>,
        depth: usize,
    ) -> Result<Result<(), String>, ReadError> {
        if depth > MAX_DEPTH {
            return Ok(Err("tuned's profiles include each other too deeply".to_owned()));
        }
        for name in names.iter().filter(|name| !name.is_empty()) {
            let (name, may_lack) = name.strip_prefix('-').map_or((*name, false), |name| (name, true));
            let (file, skipped) = self.find(name)?;
            let Some((path, text)) = file else {
                if may_lack || skipped {
                    continue;
                }
                return Ok(Err(format!("tuned's profile `{name}` does not exist")));
            };
            self.seen.push(path.clone());
            let mut profile = tuned_profile::parse(&text, &path);
            let mut include = profile.iter().filter(|unit| unit.name == "main").flat_map(|unit| &unit.options);
            if let Some(include) = include.rfind(|option| option.key == "include") {
                if include.value.contains("${") {
                    return Ok(Err(format!(
                        "tuned's profile `{name}` includes `{}`, which only tuned can tell",
                        include.value
                    )));
                }
                let included: Vec<&str> = include.value.split([',', ';']).map(str::trim).collect();
                if let Err(problem) = self.profiles(&included, units, depth + 1)? {
                    return Ok(Err(problem));
                }
            }
            profile.retain(|unit| unit.name != "main");
            tuned_profile::merge(units, profile);
        }
        Ok(Ok(()))
    }

    /// The first file of a profile that was not read yet, so that /etc/tuned/x can include /usr/lib/tuned/x; and whether
    /// one was passed over.
    fn find(&self, name: &str) -> Result<(Option<(String, String)>, bool), ReadError> {
        let base = name.rsplit('/').next().unwrap_or(name);
        let mut skipped = false;
        for directory in PROFILE_DIRECTORIES {
            let path = format!("{directory}/{base}/tuned.conf");
            if self.seen.contains(&path) {
                skipped = true;
            } else if let Some(text) = (self.read)(&path)? {
                return Ok((Some((path, text)), skipped));
            }
        }
        Ok((None, skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolved(names: &str, files: &[(&str, &str)]) -> Tuned {
        let read = |path: &str| Ok(files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned()));
        resolve(names, &read).unwrap()
    }

    fn shown(tunes: &[Tune]) -> Vec<String> {
        tunes.iter().map(|tune| format!("{} {}={}", tune.at, tune.key, tune.value.as_deref().unwrap_or("?"))).collect()
    }

    #[test]
    fn a_profile_is_merged_over_what_it_includes() {
        let tuned = resolved(
            "guest",
            &[
                (
                    "/usr/lib/tuned/base/tuned.conf",
                    "[sysctl]\nvm.swappiness=10\nnet.core.somaxconn=>2048 # at least\n[vm]\ntransparent_hugepages=never\n",
                ),
                ("/usr/lib/tuned/extra/tuned.conf", "[sysctl]\nvm.dirty_ratio = 5\n"),
                ("/usr/lib/tuned/guest/tuned.conf", "[main]\ninclude=base, extra\n[sysctl]\nvm.swappiness = 30\n"),
            ],
        );
        assert_eq!(tuned.problem, None);
        assert_eq!(
            shown(&tuned.sysctls),
            [
                "/usr/lib/tuned/guest/tuned.conf:4 vm.swappiness=30",
                "/usr/lib/tuned/base/tuned.conf:3 net.core.somaxconn=>2048",
                "/usr/lib/tuned/extra/tuned.conf:2 vm.dirty_ratio=5"
            ]
        );
        assert_eq!(shown(&tuned.huge_pages), ["/usr/lib/tuned/base/tuned.conf:5 transparent_hugepages=never"]);
    }

    #[test]
    fn replace_drop_type_and_disabled_sections() {
        let tuned = resolved(
            "child",
            &[
                (
                    "/usr/lib/tuned/base/tuned.conf",
                    "[sysctl]\na.b=1\nc.d=2\n[second]\ntype=sysctl\ne.f=3\n[third]\ntype=sysctl\ng.h=1\n",
                ),
                (
                    "/etc/tuned/child/tuned.conf",
                    "[main]\ninclude=base\n[sysctl]\ndrop=a.b\n[second]\ntype=sysctl\nreplace=true\ni.j=4\n[third]\ntype=sysctl\nenabled=false\n",
                ),
            ],
        );
        assert_eq!(
            shown(&tuned.sysctls),
            ["/usr/lib/tuned/base/tuned.conf:3 c.d=2", "/etc/tuned/child/tuned.conf:8 i.j=4"]
        );
    }

    #[test]
    fn a_profile_of_the_same_name_in_etc_can_include_the_shipped_one() {
        let tuned = resolved(
            "x",
            &[
                ("/etc/tuned/x/tuned.conf", "[main]\ninclude=x\n[sysctl]\na.b=2\n"),
                ("/usr/lib/tuned/x/tuned.conf", "[sysctl]\na.b=1\nc.d=1\n"),
            ],
        );
        assert_eq!(shown(&tuned.sysctls), ["/etc/tuned/x/tuned.conf:4 a.b=2", "/usr/lib/tuned/x/tuned.conf:3 c.d=1"]);
    }

    #[test]
    fn what_only_tuned_can_tell_is_a_problem_or_an_unknown_value() {
        let files = [
            ("/usr/lib/tuned/f/tuned.conf", "[main]\ninclude=${f:virt_check:a:b}\n"),
            (
                "/usr/lib/tuned/v/tuned.conf",
                "[variables]\nsize=5\n[sysctl]\na.b=${size}\nc.d=${f:exec:date}\n[other]\ntype=sysctl\ncpuinfo_regex=Intel\ne.f=1\n",
            ),
            ("/usr/lib/tuned/arch/tuned.conf", "[other]\ntype=sysctl\nuname_regex=s390x\ncpuinfo_regex=.\ne.f=1\n"),
        ];
        assert!(resolved("f", &files).problem.is_some());
        assert!(resolved("", &files).problem.is_some());
        assert!(resolved("nowhere", &files).problem.is_some());
        let tuned = resolved("v", &files);
        assert_eq!(tuned.sysctls[0].value.as_deref(), Ok("5"));
        assert!(tuned.sysctls[1].value.is_err() && tuned.sysctls[2].value.is_err());
        assert_eq!(resolved("arch", &files).sysctls, []);
    }

    #[test]
    fn reapplying_is_the_default() {
        assert!(reapplies("") && reapplies("reapply_sysctl = 1\n") && !reapplies("reapply_sysctl = 0\n"));
        assert!(!reapplies("reapply_sysctl=1\nreapply_sysctl=False"));
    }

    #[test]
    fn it_counts_only_when_it_starts() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).unwrap();
        make("etc/tuned");
        make("etc/systemd/system/multi-user.target.wants");
        let host = Host::at_root(root.path());
        assert_eq!(load_alone(&host).unwrap(), None);
        let link = |target: &str, at: &str| std::os::unix::fs::symlink(target, root.path().join(at)).unwrap();
        link("/usr/lib/systemd/system/tuned.service", "etc/systemd/system/multi-user.target.wants/tuned.service");
        assert!(load_alone(&host).unwrap().is_some());
        link("/dev/null", "etc/systemd/system/tuned.service");
        assert_eq!(load_alone(&host).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_profile_is_resolved(a in "(\\[(main|sysctl|vm|x)\\]\n|include=[ab],[ab]\n|type=sysctl\n|[ab]=[$>{f:}1 #]{0,4}\n| more\n){0,8}", b in "\\PC{0,40}") {
            let _ = resolved("a b", &[("/etc/tuned/a/tuned.conf", &a), ("/etc/tuned/b/tuned.conf", &b)]);
        }
    }
}
