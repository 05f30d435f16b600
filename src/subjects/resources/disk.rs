//! Room for the data directory, on the mount where it lies or will lie.

use std::cell::OnceCell;
use std::io;
use std::path::Path;
use std::time::Instant;

use crate::facts::{Fact, Facts, Value};
use crate::host::mounts;
use crate::host::mounts::Mount;
use crate::host::space::{self, Place, Space};
use crate::host::{Host, describe};
use crate::subjects::context::Context;

const STATVFS: &str = "statvfs(3)";
const BLOCK_DEVICES: &str = "/sys/dev/block";

/// Stacks of device mappers are a few high; deeper is a loop.
const MAX_DEPTH: usize = 8;

/// Inserts `disk.data.*` for the parameter `data_dir`.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    let wanted: Vec<&str> = cx.want.family("disk.data.").collect();
    if wanted.is_empty() {
        return;
    }
    let started = Instant::now();
    let found = find(cx);
    for name in wanted {
        let fact = match (&found, name) {
            (Err(fact), _) => fact.clone(),
            (Ok(found), "available") => found.available(),
            (Ok(found), "inodes") => found.inodes(),
            (Ok(found), "filesystem") => found.filesystem(),
            (Ok(found), "rotational") => found.rotational(cx.host),
            (Ok(_), _) => continue,
        };
        facts.live(format!("disk.data.{name}"), fact.took(started.elapsed()));
    }
}

/// Where the data directory is or will be.
struct Found {
    data_dir: String,
    place: Place,
    mount: Option<Mount>,
    space: OnceCell<io::Result<Space>>,
}

fn find(cx: &Context<'_>) -> Result<Found, Fact> {
    if !cx.host.is_live() {
        return Err(Fact::not_running(STATVFS));
    }
    let Some(data_dir) = cx.parameters.text("data_dir") else {
        return Err(Fact::absent("the profile has no parameter `data_dir`", "data_dir"));
    };
    let path = Path::new(data_dir);
    if !path.is_absolute() {
        return Err(Fact::unknown(format!("`{data_dir}` is not an absolute path"), Some("set data_dir"), "data_dir"));
    }
    let place = space::nearest(path)
        .map_err(|error| Fact::unknown(format!("cannot look up {data_dir}: {}", describe(&error)), None, data_dir))?;
    let mounts = cx.mounts().unwrap_or_default();
    if let Some(mount) = behind_a_closed_folder(&place, path, mounts) {
        let point = mount.mount_point.display();
        let error = format!("{data_dir} lies on {point}, behind a folder that this user may not enter");
        return Err(Fact::unknown(error, Some("run as root"), data_dir));
    }
    let mount = mounts::holding(mounts, &place.path, space::mount_id(&place.path)).cloned();
    Ok(Found { data_dir: data_dir.to_owned(), place, mount, space: OnceCell::new() })
}

/// Mount points are listed even where they cannot be reached: then the nearest visible ancestor is the wrong one.
fn behind_a_closed_folder<'a>(place: &Place, path: &Path, mounts: &'a [Mount]) -> Option<&'a Mount> {
    let below = |mount: &&Mount| path.starts_with(&mount.mount_point) && !place.path.starts_with(&mount.mount_point);
    mounts.iter().filter(|_| place.hidden).find(below)
}

impl Found {
    /// `on /var (ext4); /var/lib/redis does not exist yet`.
    fn note(&self) -> String {
        let place = match &self.mount {
            Some(mount) => format!("on {} ({})", mount.mount_point.display(), mount.filesystem),
            None => format!("at {}", self.place.path.display()),
        };
        if self.place.hidden {
            format!("{place}; {} is not visible to this user", self.data_dir)
        } else if self.place.whole {
            place
        } else {
            format!("{place}; {} does not exist yet", self.data_dir)
        }
    }

    fn space(&self, of: impl Fn(&Space) -> Fact) -> Fact {
        match self.space.get_or_init(|| space::available(&self.place.path)) {
            Ok(space) if space.read_only => of(space).note(format!("{}; mounted read-only", self.note())),
            Ok(space) => of(space).note(self.note()),
            Err(error) => {
                let path = self.place.path.display().to_string();
                Fact::unknown(format!("cannot ask for the room at {path}: {}", describe(error)), None, path)
            }
        }
    }

    fn source(&self) -> String {
        format!("{STATVFS} of {}", self.place.path.display())
    }

    fn available(&self) -> Fact {
        self.space(|space| Fact::known(Value::Bytes(space.available), self.source()))
    }

    fn inodes(&self) -> Fact {
        self.space(|space| match space.inodes_free_percent {
            Some(percent) => Fact::known(Value::percent(percent), self.source()),
            None => Fact::absent("this file system does not count inodes", self.source()),
        })
    }

    fn filesystem(&self) -> Fact {
        match &self.mount {
            Some(mount) => Fact::known(Value::Text(mount.filesystem.clone()), mounts::MOUNTINFO).note(self.note()),
            None => no_mount(),
        }
    }

    fn rotational(&self, host: &Host) -> Fact {
        self.mount.as_ref().map_or_else(no_mount, |mount| rotational(host, mount))
    }
}

fn no_mount() -> Fact {
    Fact::unknown("the mount of the data directory is not listed", Some("mount /proc"), mounts::MOUNTINFO)
}

/// Whether the disk under a mount spins; of several disks (LVM, RAID), whether one does.
pub fn rotational(host: &Host, mount: &Mount) -> Fact {
    let device = format!("{BLOCK_DEVICES}/{}", mount.device);
    if mount.device.starts_with("0:") {
        return Fact::absent(format!("{} has no block device of its own", mount.filesystem), device);
    }
    match spins(host, &device, MAX_DEPTH) {
        Some(spins) => {
            let fact = Fact::known(Value::Bool(spins), format!("{device}/queue/rotational"));
            if is_virtual(host, &device) {
                fact.note("as a virtual disk says; the real one is not visible")
            } else {
                fact
            }
        }
        None if host.unmounted(Path::new(&device)).is_some() => {
            Fact::unknown("/sys is not there", Some("mount /proc and /sys"), device)
        }
        None => Fact::absent("the kernel does not say whether this device spins", device),
    }
}

/// A device mapper's own file only repeats what its disks said when it was set up, so they are asked first. A partition
/// has no queue: its folder lies in its disk's.
fn spins(host: &Host, device: &str, depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let slaves = host.list(format!("{device}/slaves")).unwrap_or_default();
    let below: Vec<bool> = slaves
        .iter()
        .filter_map(|slave| spins(host, &format!("{device}/slaves/{}", slave.to_string_lossy()), depth))
        .collect();
    if !below.is_empty() {
        return Some(below.contains(&true));
    }
    ["queue/rotational", "../queue/rotational"].iter().find_map(|file| {
        match host.read_text(format!("{device}/{file}")).ok()?.trim() {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        }
    })
}

/// Virtio and Xen disks report what their driver defaults to.
fn is_virtual(host: &Host, device: &str) -> bool {
    let name = host.link_target(device).and_then(|target| target.file_name().map(ToOwned::to_owned));
    name.and_then(|name| name.into_string().ok()).is_some_and(|name| name.starts_with("vd") || name.starts_with("xvd"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the roots they read")]
mod tests {
    use super::*;
    use crate::facts::State;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn mount(device: &str, point: &str) -> Mount {
        Mount {
            id: 1,
            device: device.into(),
            root: "/".into(),
            mount_point: point.into(),
            filesystem: "btrfs".into(),
            super_options: String::new(),
        }
    }

    #[test]
    fn partitions_and_mappers_lead_to_their_disks() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        // sda spins, nvme0n1 does not; dm-0 lies on a partition of each; dm-1 lies on itself.
        for (disk, spins) in [("sda", "1\n"), ("nvme0n1", "0\n"), ("vda", "1\n"), ("dm-0", "0\n")] {
            fs::create_dir_all(at(&format!("sys/devices/{disk}/queue"))).unwrap();
            fs::write(at(&format!("sys/devices/{disk}/queue/rotational")), spins).unwrap();
        }
        fs::create_dir_all(at("sys/devices/sda/sda1")).unwrap();
        fs::create_dir_all(at("sys/devices/nvme0n1/nvme0n1p1")).unwrap();
        fs::create_dir_all(at("sys/devices/dm-0/slaves")).unwrap();
        fs::create_dir_all(at("sys/devices/dm-1/slaves")).unwrap();
        symlink("../../sda/sda1", at("sys/devices/dm-0/slaves/sda1")).unwrap();
        symlink("../../nvme0n1/nvme0n1p1", at("sys/devices/dm-0/slaves/nvme0n1p1")).unwrap();
        symlink("../../dm-1", at("sys/devices/dm-1/slaves/dm-1")).unwrap();
        fs::create_dir_all(at("sys/dev/block")).unwrap();
        for (number, device) in [
            ("8:1", "sda/sda1"),
            ("259:1", "nvme0n1/nvme0n1p1"),
            ("253:0", "dm-0"),
            ("253:1", "dm-1"),
            ("254:0", "vda"),
        ] {
            symlink(format!("../../devices/{device}"), at(&format!("sys/dev/block/{number}"))).unwrap();
        }
        let host = Host::at_root(root.path());
        let of = |device: &str| rotational(&host, &mount(device, "/"));
        assert_eq!(of("8:1").value(), Some(&Value::Bool(true)));
        assert_eq!(of("259:1").value(), Some(&Value::Bool(false)));
        assert_eq!(of("253:0").value(), Some(&Value::Bool(true)), "one of its two disks spins");
        assert!(matches!(of("253:1").state, State::Absent(_)), "a loop of mappers must end");
        assert!(matches!(of("0:42").state, State::Absent(_)));
        assert!(matches!(of("8:99").state, State::Absent(_)));
        assert!(of("254:0").note.is_some() && of("8:1").note.is_none());
    }

    #[test]
    fn a_mount_behind_a_closed_folder_is_not_mistaken_for_its_parent() {
        let mounts = [mount("8:1", "/"), mount("8:2", "/secret/data")];
        let place = Place { path: "/".into(), whole: false, hidden: true };
        assert!(behind_a_closed_folder(&place, Path::new("/secret/data/redis"), &mounts).is_some());
        assert!(behind_a_closed_folder(&place, Path::new("/secret/other"), &mounts).is_none());
        let open = Place { hidden: false, ..place };
        assert!(behind_a_closed_folder(&open, Path::new("/secret/data/redis"), &mounts).is_none());
    }
}
