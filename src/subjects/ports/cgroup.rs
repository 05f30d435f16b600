//! Who a process belongs to, read from `/proc/PID/cgroup`: a container, a systemd unit, both or neither.

/// What the cgroup path of a process says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Belongs {
    /// The id (64 hexadecimal digits) of the outermost container; for LXC and nspawn the name.
    pub container: Option<String>,
    /// The innermost systemd service or scope: `nginx.service`. As systemd escaped it.
    pub unit: Option<String>,
}

/// Names before the id in a scope's name, as the engines' systemd cgroup drivers write them.
const SCOPE_PREFIXES: &[&str] =
    &["docker-", "libpod-conmon-", "libpod-", "cri-containerd-", "crio-conmon-", "crio-", "nerdctl-", "containerd-"];

/// Reads the file (cgroups(7)): `0::PATH` on version 2, `ID:CONTROLLERS:PATH` per hierarchy on version 1.
pub fn parse(text: &str) -> Belongs {
    let mut found = Belongs::default();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        for component in path.split('/') {
            if found.container.is_none() {
                found.container = container(component);
            }
        }
        // On version 1 only systemd's own hierarchy names units reliably; the empty one is version 2.
        if found.unit.is_none() && (controllers.is_empty() || controllers == "name=systemd") {
            found.unit = path.split('/').rev().find_map(unit);
        }
    }
    found
}

fn container(component: &str) -> Option<String> {
    if let Some(name) = component.strip_prefix("lxc.payload.") {
        return (!name.is_empty()).then(|| name.to_owned());
    }
    if let Some(name) = component.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope")) {
        return (!name.is_empty()).then(|| name.to_owned());
    }
    // cgroupfs driver: the id alone (`/docker/ID`) or behind a prefix (`/libpod_parent/libpod-ID`).
    let body = component.strip_suffix(".scope").unwrap_or(component);
    let body = SCOPE_PREFIXES.iter().find_map(|prefix| body.strip_prefix(prefix)).unwrap_or(body);
    let is_id = body.len() == 64 && body.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| body.to_owned())
}

fn unit(component: &str) -> Option<String> {
    let is_unit = [".service", ".scope"].iter().any(|suffix| component.ends_with(suffix));
    (is_unit && container(component).is_none()).then(|| component.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn belongs(container: Option<&str>, unit: Option<&str>) -> Belongs {
        Belongs { container: container.map(Into::into), unit: unit.map(Into::into) }
    }

    #[test]
    fn every_known_form_is_understood() {
        let id = Some(ID);
        for (text, want) in [
            ("0::/system.slice/nginx.service\n".to_owned(), belongs(None, Some("nginx.service"))),
            ("0::/\n".to_owned(), belongs(None, None)),
            (String::new(), belongs(None, None)),
            (
                "12:pids:/system.slice/a.service\n1:name=systemd:/system.slice/b.service\n0::/system.slice/c.service\n"
                    .into(),
                belongs(None, Some("b.service")),
            ),
            (format!("0::/system.slice/docker-{ID}.scope\n"), belongs(id, None)),
            (format!("12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/docker/{ID}\n"), belongs(id, None)),
            (format!("0::/docker/{ID}/system.slice/nginx.service\n"), belongs(id, Some("nginx.service"))),
            (format!("0::/machine.slice/libpod-{ID}.scope/container\n"), belongs(id, None)),
            (format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"), belongs(id, None)),
            (format!("11:cpu:/libpod_parent/libpod-{ID}\n"), belongs(id, None)),
            (
                format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n"),
                belongs(id, Some("user@1000.service")),
            ),
            (
                format!(
                    "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-{ID}.scope"
                ),
                belongs(id, None),
            ),
            (format!("5:devices:/kubepods/burstable/pod0b1c/{ID}\n"), belongs(id, None)),
            ("0::/user.slice/user-1000.slice/session-3.scope\n".into(), belongs(None, Some("session-3.scope"))),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/redis.service".into(),
                belongs(None, Some("redis.service")),
            ),
            (
                "0::/system.slice/system-redis\\x2dserver.slice/redis-server@a.service".into(),
                belongs(None, Some("redis-server@a.service")),
            ),
            ("0::/lxc.payload.web/system.slice/x.service".into(), belongs(Some("web"), Some("x.service"))),
            ("0::/machine.slice/machine-debian.scope/payload".into(), belongs(Some("debian"), None)),
            // A path outside the reader's cgroup namespace is relative (cgroup_namespaces(7)).
            (format!("0::/../docker-{ID}.scope"), belongs(id, None)),
            // 63 digits are no id.
            (format!("0::/docker/{}\n", &ID[1..]), belongs(None, None)),
        ] {
            assert_eq!(parse(&text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,80}", path in "([0-9]{0,2}:[a-z=]{0,12}:/[a-z0-9./-]{0,90}\n){0,4}") {
            let _ = parse(&text);
            let _ = parse(&path);
        }

        #[test]
        fn an_id_is_found_wherever_it_stands(before in "(/[a-z.]{1,8}){0,3}", after in "(/[a-z]{1,8}){0,3}") {
            let found = parse(&format!("0::{before}/docker-{ID}.scope{after}\n"));
            prop_assert_eq!(found.container.as_deref(), Some(ID));
        }
    }
}
