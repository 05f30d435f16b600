//! Docker: is an engine there, which one, what does it say, and what do its containers get?
//!
//! The engine is asked on a thread of its own while everything else is gathered; [`start`] and [`Handle::finish`] are
//! the two ends. When nobody listens there is no thread and no runtime: that answer costs microseconds.

#[cfg(feature = "docker")]
pub mod answers;
#[cfg(feature = "docker")]
mod clash;
#[cfg(feature = "docker")]
pub mod client;
#[cfg(feature = "docker")]
pub mod compose;
#[cfg(feature = "docker")]
pub mod daemon;
#[cfg(feature = "docker")]
pub mod endpoint;
#[cfg(feature = "docker")]
pub mod networks;
#[cfg(feature = "docker")]
pub mod nofile;
#[cfg(feature = "docker")]
pub mod store;
pub mod sysctls;

#[cfg(feature = "docker")]
mod configuration;
pub mod containers;
pub mod derive;
pub mod docker_boot;
#[cfg(feature = "docker")]
mod process;
#[cfg(feature = "docker")]
mod run;

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

pub use sysctls::container_layer;

use crate::facts::registry::{Scope, scope};
use crate::facts::{Fact, Facts, Layer};
use crate::host::{Host, env};
use crate::subjects::context::{Context, Probe};
use crate::subjects::docker::containers::Containers;

/// How long the whole conversation with the engine may take, and Compose, which runs beside it.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// The limit that containers get is gathered here, since the engine knows it best.
const NOFILE: &str = "limits.container-nofile";

/// The facts of networks.
pub const NETWORKS: &str = "docker.networks";
const ROUTES: &str = "docker.workload-routes";
const OUTSIDE: &str = "docker.workload-outside";

/// What the environment says about Docker. Read once, in [`Environment::current`], so that tests choose their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub docker_host: Option<String>,
    pub docker_context: Option<String>,
    pub docker_config: Option<PathBuf>,
    pub home: Option<PathBuf>,
    pub runtime_folder: Option<PathBuf>,
    pub path: Option<OsString>,
    /// Who called sudo.
    pub sudo_uid: Option<String>,
    pub uid: u32,
    pub is_root: bool,
}

impl Environment {
    /// This process's own.
    pub fn current() -> Self {
        let uid = nix::unistd::geteuid();
        Self {
            docker_host: env::text("DOCKER_HOST"),
            docker_context: env::text("DOCKER_CONTEXT"),
            docker_config: env::path("DOCKER_CONFIG"),
            home: env::path("HOME"),
            runtime_folder: env::path("XDG_RUNTIME_DIR"),
            path: env::var("PATH"),
            sudo_uid: env::text("SUDO_UID"),
            uid: uid.as_raw(),
            is_root: uid.is_root(),
        }
    }

    /// The folder of config.json, contexts and cli-plugins.
    pub fn config_folder(&self) -> Option<PathBuf> {
        self.docker_config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".docker")))
    }
}

/// What the probe is asked: owned, so that it can go to another thread, and only Docker's part of what is wanted, since
/// ten thousand ids would be costly to copy.
#[derive(Debug, Clone)]
pub struct Request {
    pub host: Host,
    /// Wanted ids: `docker.*` and `limits.container-nofile`.
    pub ids: Vec<String>,
    /// Whether the container list is wanted, by this probe or by others.
    pub containers: bool,
    pub workload_images: Vec<String>,
    pub environment: Environment,
    pub deadline: Duration,
}

impl Request {
    pub fn new(cx: &Context<'_>, environment: Environment) -> Self {
        let mut ids: Vec<String> = cx.want.family("docker.").map(|name| format!("docker.{name}")).collect();
        if cx.want.has(NOFILE) {
            ids.push(NOFILE.to_owned());
        }
        let network = |name: &str| scope(&format!("sysctl.{name}")) == Scope::Network;
        let containers = cx.want.has(NOFILE)
            || cx.want.has(ROUTES)
            || cx.want.has(OUTSIDE)
            || cx.want.any("port.state.")
            || cx.want.any("firewall.exposure.")
            || cx.want.has("firewall.other-ports")
            || cx.want.family("sysctl.").any(|name| name.starts_with("net.") && network(name));
        Self {
            host: cx.host.clone(),
            ids,
            containers,
            workload_images: cx.parameters.list("workload_images").to_vec(),
            environment,
            deadline: DEADLINE,
        }
    }

    pub fn wants(&self, id: &str) -> bool {
        self.ids.iter().any(|wanted| wanted == id)
    }

    /// The same answer for everything that is wanted.
    pub fn all(&self, fact: impl Fn() -> Fact) -> Facts {
        let mut facts = Facts::default();
        for id in &self.ids {
            facts.insert(id, layer(id), fact());
        }
        facts
    }
}

/// `limits.container-nofile` is a container's; everything else is a fact about now.
fn layer(id: &str) -> Layer {
    if id == NOFILE { Layer::Container } else { Layer::Live }
}

/// Everything learned about Docker.
#[derive(Debug)]
pub struct Docker {
    pub facts: Facts,
    pub containers: Containers,
}

/// A conversation that may still be going on.
#[derive(Debug)]
pub struct Handle(Progress);

#[derive(Debug)]
enum Progress {
    Done(Box<Docker>),
    #[cfg_attr(not(feature = "docker"), expect(dead_code, reason = "nothing runs without Docker support"))]
    Running {
        thread: JoinHandle<Docker>,
        request: Box<Request>,
    },
}

/// Starts asking, with the environment of this process.
pub fn start(cx: &Context<'_>) -> Handle {
    start_with(Request::new(cx, Environment::current()))
}

/// Starts asking. Returns at once; a thread is only started when somebody listens on the socket.
pub fn start_with(request: Request) -> Handle {
    if request.ids.is_empty() && !request.containers {
        return Handle::done(Facts::default(), "nobody asked for containers");
    }
    if !request.host.is_live() {
        return not_live(&request);
    }
    begin(request)
}

#[cfg(feature = "docker")]
use run::{begin, not_live};

/// What is read of the host by itself, in no particular order.
pub const READERS: &[Probe] = &[docker_boot::probe];

#[cfg(not(feature = "docker"))]
#[expect(clippy::needless_pass_by_value, reason = "the same shape as with Docker support")]
fn begin(request: Request) -> Handle {
    let error = "built without Docker support";
    let facts = request.all(|| Fact::unknown(error, Some("build with the feature `docker`"), "preflight"));
    Handle::done(facts, error)
}

#[cfg(not(feature = "docker"))]
fn not_live(request: &Request) -> Handle {
    Handle::done(request.all(|| Fact::not_running("Docker")), "not a running host")
}

impl Handle {
    fn done(facts: Facts, no_containers: &str) -> Self {
        let containers = Containers::Unknown(no_containers.to_owned());
        Self(Progress::Done(Box::new(Docker { facts, containers })))
    }

    /// Runs `work` on its own thread.
    #[cfg(feature = "docker")]
    fn spawn(request: Request, work: impl FnOnce(Request) -> Docker + Send + 'static) -> Self {
        let kept = Box::new(request.clone());
        match std::thread::Builder::new().name("docker".into()).spawn(move || work(request)) {
            Ok(thread) => Self(Progress::Running { thread, request: kept }),
            Err(error) => {
                let error = format!("cannot start a thread: {}", crate::host::describe(&error));
                let facts = kept.all(|| Fact::unknown(error.clone(), None, "clone(2)"));
                Self::done(facts, &error)
            }
        }
    }

    /// Whether a thread was started.
    pub fn is_running(&self) -> bool {
        matches!(self.0, Progress::Running { .. })
    }

    /// Waits for the answers; at most the deadline and what a killed Compose needs to end. A panic over there becomes
    /// unknown facts where the build unwinds; a release does not and has ended already, with the code of an internal error.
    pub fn finish(self) -> Docker {
        match self.0 {
            Progress::Done(docker) => *docker,
            Progress::Running { thread, request } => thread.join().unwrap_or_else(|_| {
                let error = "internal error while asking Docker";
                let facts = request.all(|| Fact::unknown(error, Some("please report this"), "preflight"));
                Docker { facts, containers: Containers::Unknown(error.to_owned()) }
            }),
        }
    }
}

#[cfg(all(test, feature = "docker"))]
mod tests {
    use super::*;
    use crate::facts::State;

    fn request() -> Request {
        Request {
            host: Host::live(),
            ids: vec!["docker.state".into(), "docker.version".into(), NOFILE.into()],
            containers: true,
            workload_images: vec!["redis".into()],
            environment: Environment::default(),
            deadline: DEADLINE,
        }
    }

    /// Seen to abort the test with `thread.join().unwrap()` in `finish`.
    #[test]
    fn a_panic_becomes_unknown_facts() {
        let docker = Handle::spawn(request(), |_| panic!("on purpose")).finish();
        for (id, layer) in [("docker.state", Layer::Live), ("docker.version", Layer::Live), (NOFILE, Layer::Container)]
        {
            let fact = docker.facts.get(id, layer).unwrap();
            assert!(
                matches!(&fact.state, State::Unknown { error, .. } if error.contains("internal error")),
                "{fact:?}"
            );
        }
        assert!(matches!(docker.containers, Containers::Unknown(_)));
    }

    #[test]
    fn nothing_wanted_asks_nothing() {
        let handle = start_with(Request { ids: vec![], containers: false, ..request() });
        assert!(!handle.is_running());
        assert!(handle.finish().facts.is_empty());
    }

    #[test]
    fn a_root_directory_has_no_docker() {
        let root = tempfile::tempdir().unwrap();
        let handle = start_with(Request { host: Host::at_root(root.path()), ..request() });
        assert!(!handle.is_running());
        let docker = handle.finish();
        let fact = docker.facts.get("docker.state", Layer::Live).unwrap();
        assert!(matches!(&fact.state, State::Absent(crate::facts::AbsentReason::NotRunning)), "{fact:?}");
    }
}
