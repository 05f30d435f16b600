//! Talking to the engine: bollard over one unix socket, GET only, everything at once, under one deadline.
//!
//! This is the only asynchronous room of the house. Requests carry no API version, so that an engine older or newer
//! than bollard answers too. What comes in is limited: the other side of a socket need not be Docker.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, PortSummaryTypeEnum, SystemInfo, SystemVersion};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions, ListNetworksOptions};
use bollard::{BollardRequest, Docker};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, JoinSet};

use super::networks::{self as docker_networks, DockerNetwork};
use crate::catalog::parameters::Protocol;
use crate::subjects::docker::containers::{Container, Published};

/// What one answer may weigh. A thousand containers with long labels weigh 3 MiB.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// How many workload containers are inspected. A host with more of them still shows the first ones.
const MAX_INSPECTED: usize = 64;

/// How long to wait before connecting again when the queue of the socket is full.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Why a request brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("{0}")]
    Answer(String),
    #[error("not asked")]
    NotAsked,
}

/// One answer and how long it took.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    pub result: Result<T, Failure>,
    pub took: Duration,
}

impl<T> Answer<T> {
    pub fn failed(failure: Failure) -> Self {
        Self { result: Err(failure), took: Duration::ZERO }
    }
}

/// All answers of one run.
#[derive(Debug)]
pub struct Answers {
    pub ping: Answer<()>,
    pub version: Answer<SystemVersion>,
    pub info: Answer<SystemInfo>,
    pub containers: Answer<Vec<Container>>,
    pub networks: Answer<Vec<DockerNetwork>>,
}

/// What to ask besides `/_ping`.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent questions, not a state")]
pub struct Questions {
    pub version: bool,
    pub info: bool,
    pub containers: bool,
    pub networks: bool,
    /// Running containers of these images are inspected.
    pub workload_images: Vec<String>,
}

/// Asks everything at once. `answered` is called as soon as the engine answers its ping, so that what needs a living
/// engine can run beside the rest.
pub fn ask(socket: &Path, deadline: Duration, questions: &Questions, answered: impl FnOnce()) -> io::Result<Answers> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let docker = connect(socket)?;
        let clock = Clock { deadline, ends: Instant::now() + deadline };
        let ping = spawn(clock, true, ping(docker.clone()));
        let version = spawn(clock, questions.version, version(docker.clone()));
        let info = spawn(clock, questions.info, info(docker.clone()));
        let networks = spawn(clock, questions.networks, networks(docker.clone()));
        let containers = spawn(clock, questions.containers, containers(docker, questions.workload_images.clone()));
        let ping = finish(ping).await;
        if ping.result.is_ok() {
            answered();
        }
        Ok(Answers {
            ping,
            version: finish(version).await,
            info: finish(info).await,
            containers: finish(containers).await,
            networks: finish(networks).await,
        })
    })
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    deadline: Duration,
    ends: Instant,
}

async fn ping(docker: Docker) -> Result<(), Error> {
    let answer = docker.ping().await?;
    // moby and Podman both answer `OK`; a web server behind the socket answers a page.
    if answer.trim() == "OK" { Ok(()) } else { Err(io::Error::other("its answer to the ping is not `OK`").into()) }
}

async fn version(docker: Docker) -> Result<SystemVersion, Error> {
    docker.version().await
}

async fn info(docker: Docker) -> Result<SystemInfo, Error> {
    docker.info().await
}

async fn networks(docker: Docker) -> Result<Vec<DockerNetwork>, Error> {
    let listed = docker.list_networks(None::<ListNetworksOptions>).await?;
    Ok(listed.into_iter().map(docker_networks::listed).collect())
}

async fn containers(docker: Docker, images: Vec<String>) -> Result<Vec<Container>, Error> {
    let options = ListContainersOptions { all: false, ..ListContainersOptions::default() };
    let running = docker.list_containers(Some(options)).await?;
    let mut containers: Vec<Container> = running.into_iter().map(listed).collect();
    let mut inspections = JoinSet::new();
    let wanted = containers.iter().enumerate().filter(|(_, container)| container.is_workload(&images));
    for (index, container) in wanted.take(MAX_INSPECTED) {
        let (docker, id) = (docker.clone(), container.id.clone());
        inspections.spawn(async move { (index, docker.inspect_container(&id, None::<InspectContainerOptions>).await) });
    }
    while let Some(done) = inspections.join_next().await {
        // A container may end between the list and its inspection: it stays listed, without details.
        if let Ok((index, Ok(details))) = done
            && let Some(container) = containers.get_mut(index)
        {
            inspected(container, details);
        }
    }
    Ok(containers)
}

/// A container as `GET /containers/json` shows it.
pub fn listed(summary: ContainerSummary) -> Container {
    let name = summary.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    let mut inside = BTreeSet::new();
    let ports = summary.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let protocol = match port.typ {
            Some(PortSummaryTypeEnum::UDP) => Protocol::Udp,
            Some(PortSummaryTypeEnum::SCTP) => return None,
            Some(PortSummaryTypeEnum::TCP | PortSummaryTypeEnum::EMPTY) | None => Protocol::Tcp,
        };
        inside.insert((protocol, port.private_port));
        let address = port.ip.and_then(|ip| ip.parse().ok());
        let inside = port.private_port;
        Some(Published { address, port: port.public_port.filter(|port| *port != 0)?, protocol, inside })
    });
    let published = ports.collect();
    let attached = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let addresses = attached.values().flat_map(|endpoint| [&endpoint.ip_address, &endpoint.global_ipv6_address]);
    let addresses = addresses.filter_map(|address| address.as_ref()?.parse().ok()).collect();
    Container {
        id: summary.id.unwrap_or_default(),
        name: name.trim_start_matches('/').to_owned(),
        image: summary.image.unwrap_or_default(),
        command: summary.command.unwrap_or_default(),
        project: summary.labels.and_then(|mut labels| labels.remove("com.docker.compose.project")),
        published,
        ports: inside,
        networks: attached.into_values().filter_map(|endpoint| endpoint.network_id).collect(),
        addresses,
        ..Container::default()
    }
}

/// Adds what only `GET /containers/ID/json` shows.
pub fn inspected(container: &mut Container, details: ContainerInspectResponse) {
    let state = details.state.unwrap_or_default();
    let running = state.running.unwrap_or_default();
    container.pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| running && *pid > 0);
    let Some(config) = details.host_config else { return };
    container.network_mode = config.network_mode;
    container.sysctls = config.sysctls.unwrap_or_default().into_iter().collect();
    let nofile = config.ulimits.unwrap_or_default().into_iter().find(|limit| limit.name.as_deref() == Some("nofile"));
    container.nofile_hard = nofile.and_then(|limit| limit.hard);
}

/// Runs a request on its own task, so that all wait at the same time and a panic stays in its task.
fn spawn<T: Send + 'static>(
    clock: Clock,
    wanted: bool,
    request: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Option<JoinHandle<Answer<T>>> {
    wanted.then(|| {
        tokio::spawn(async move {
            let started = Instant::now();
            let result = match tokio::time::timeout_at(clock.ends.into(), request).await {
                Ok(answer) => answer.map_err(|error| Failure::Answer(words(&error))),
                Err(_) => Err(Failure::Deadline(clock.deadline)),
            };
            Answer { result, took: started.elapsed() }
        })
    })
}

async fn finish<T>(task: Option<JoinHandle<Answer<T>>>) -> Answer<T> {
    match task {
        Some(task) => {
            task.await.unwrap_or_else(|_| Answer::failed(Failure::Answer("internal error while asking".to_owned())))
        }
        None => Answer::failed(Failure::NotAsked),
    }
}

/// An error as an administrator reads it, cut to a line's length: a hostile answer may be long.
fn words(error: &Error) -> String {
    const MAX_CHARS: usize = 200;
    let text = match error {
        Error::DockerResponseServerError { status_code, message } => {
            format!("status {status_code}: {}", message.trim())
        }
        Error::JsonDataError { message, .. } => format!("the answer was not understood: {message}"),
        Error::JsonSerdeError { err } => format!("the answer was not understood: {err}"),
        Error::HyperResponseError { err } => innermost(err),
        other => innermost(other),
    };
    let mut cut: String = text.chars().take(MAX_CHARS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// bollard on a transport of our own. bollard's own reads an answer of any size into memory.
fn connect(socket: &Path) -> io::Result<Docker> {
    let socket = socket.to_owned();
    let transport = move |request: BollardRequest| send(socket.clone(), request);
    // The timeout of bollard is in whole seconds and does not cover the body: ours binds.
    Docker::connect_with_custom_transport(transport, Some("http://docker"), 3_600, bollard::API_DEFAULT_VERSION)
        .map_err(io::Error::other)
}

async fn send(socket: PathBuf, request: BollardRequest) -> Result<hyper::Response<hyper::body::Incoming>, Error> {
    let stream = loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => break stream,
            // The queue of waiting connections is full; the deadline ends this loop.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(RETRY_INTERVAL).await,
            Err(error) => return Err(error.into()),
        }
    };
    let stream = TokioIo::new(Limited { stream, left: MAX_ANSWER_BYTES });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    // Over a socket the request line holds the path alone, and Host is only a formality.
    if let Some(path) = parts.uri.path_and_query() {
        parts.uri = path.as_str().parse().map_err(io::Error::other)?;
    }
    parts.headers.insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("docker"));
    Ok(sender.send_request(BollardRequest::from_parts(parts, body)).await?)
}

/// A stream that ends in an error after so many bytes.
#[derive(Debug)]
struct Limited {
    stream: UnixStream,
    left: usize,
}

impl AsyncRead for Limited {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) {
            let Some(left) = self.left.checked_sub(buffer.filled().len() - before) else {
                let error = format!("the answer is larger than {} MiB", MAX_ANSWER_BYTES >> 20);
                return Poll::Ready(Err(io::Error::other(error)));
            };
            self.left = left;
        }
        polled
    }
}

impl AsyncWrite for Limited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
