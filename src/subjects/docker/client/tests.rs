//! The client against a fake engine: a listener that answers what each test says.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use super::*;

/// Answers requests by their path; `None` leaves the connection open without a word. Ends with the test's process.
fn fake(folder: &Path, answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> PathBuf {
    let socket = folder.join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = std::sync::Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).unwrap_or_default();
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                assert!(request.starts_with("GET /"), "only GET is allowed: {request}");
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                match answer(&path) {
                    Some(bytes) => drop(stream.write_all(&bytes)),
                    None => thread::sleep(Duration::from_secs(30)),
                }
            });
        }
    });
    socket
}

#[expect(clippy::unnecessary_wraps, reason = "what a fake engine returns")]
fn json(body: &str) -> Option<Vec<u8>> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    Some((head + body).into_bytes())
}

fn everything() -> Questions {
    Questions { version: true, info: true, containers: true, networks: true, workload_images: vec!["redis".into()] }
}

fn asked(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> (Answers, bool, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let socket = fake(folder.path(), answer);
    let (started, mut called) = (Instant::now(), false);
    let answers = ask(&socket, Duration::from_millis(400), &everything(), || called = true).unwrap();
    (answers, called, started.elapsed())
}

#[test]
fn all_is_asked_without_a_version_and_workload_containers_are_inspected() {
    let (answers, called, _) = asked(|path| match path {
        "/_ping" => json("OK"),
        "/version" => json(r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#),
        "/info" => json(r#"{"LoggingDriver":"json-file","NewFieldOf2030":{"a":[1]}}"#),
        path if path.starts_with("/containers/json") => json(
            r#"[{"Id":"abc","Names":["/redis-1"],"Image":"redis:7","Command":"redis-server","Ports":
               [{"IP":"0.0.0.0","PrivatePort":6379,"PublicPort":6380,"Type":"tcp"},{"PrivatePort":1,"Type":"tcp"}],
               "Labels":{"com.docker.compose.project":"p"},"State":"running"},
               {"Id":"def","Names":["/web"],"Image":"nginx"}]"#,
        ),
        "/containers/abc/json" => json(
            r#"{"State":{"Running":true,"Pid":42},"HostConfig":{"NetworkMode":"bridge",
               "Sysctls":{"net.core.somaxconn":"1024"},"Ulimits":[{"Name":"nofile","Hard":2048,"Soft":1024}]}}"#,
        ),
        other => panic!("asked for {other}"),
    });
    assert!(called, "the answer to the ping was not told");
    assert_eq!(answers.version.result.unwrap().version.as_deref(), Some("20.10.24"));
    assert_eq!(answers.info.result.unwrap().logging_driver.as_deref(), Some("json-file"));
    let containers = answers.containers.result.unwrap();
    let redis = &containers[0];
    assert_eq!((redis.name.as_str(), redis.pid, redis.nofile_hard), ("redis-1", Some(42), Some(2048)));
    assert_eq!(redis.published.len(), 1);
    assert_eq!(redis.published[0].port, 6380);
    assert_eq!(redis.sysctls["net.core.somaxconn"], "1024");
    assert_eq!(containers[1].pid, None, "only the workload is inspected");
}

/// Seen to take 4 × 400 ms when each request had a deadline of its own, one after the other.
#[test]
fn a_silent_engine_costs_its_deadline_once() {
    let (answers, called, took) = asked(|_| None);
    assert!(!called);
    let late = Failure::Deadline(Duration::from_millis(400));
    assert_eq!(answers.ping.result.unwrap_err(), late);
    assert_eq!(answers.containers.result.unwrap_err(), late);
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn one_silent_answer_does_not_take_the_others_along() {
    let (answers, called, took) = asked(|path| match path {
        "/info" => None,
        "/_ping" => json("OK"),
        "/version" => json("{}"),
        _ => json("[]"),
    });
    assert!(called && answers.version.result.is_ok() && answers.containers.result.is_ok());
    assert!(matches!(answers.info.result, Err(Failure::Deadline(_))));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_body_that_never_ends_ends_at_the_deadline() {
    let (answers, _, took) = asked(|_| Some(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()));
    // The fake closes after its bytes: the body is cut, which is an error too.
    assert!(matches!(answers.info.result, Err(Failure::Answer(_))), "{:?}", answers.info);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Seen to fail (the answer is read to its end) with `Limited` taken out.
#[test]
fn a_huge_answer_is_refused() {
    let (answers, _, _) = asked(|path| {
        let size = if path == "/info" { MAX_ANSWER_BYTES + 1_000_000 } else { 2 };
        let mut body = b"{\"Name\":\"".to_vec();
        body.resize(size.max(body.len()), b'x');
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        Some([head.into_bytes(), body].concat())
    });
    let error = answers.info.result.unwrap_err().to_string();
    assert!(error.contains("larger than 16 MiB") || error.contains("no answer within"), "{error}");
}

#[test]
fn garbage_is_told_apart_from_silence() {
    for garbage in [
        "",
        "\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 20\r\n\r\n{\"message\":\"broken\"}",
        "HTTP/1.1 302 Found\r\nLocation: http://example.invalid/\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (answers, called, _) = asked(move |_| Some(garbage.as_bytes().to_vec()));
        assert!(!called, "{garbage}");
        for failure in [answers.ping.result.unwrap_err(), answers.info.result.unwrap_err()] {
            assert!(matches!(&failure, Failure::Answer(_)), "{garbage}: {failure:?}");
        }
    }
}

#[test]
fn wrong_types_and_depths_are_refused_in_a_line() {
    let deep = "[".repeat(100_000);
    for body in [r#"{"Version":7}"#, "[]", "null", "{\"Components\":\"x\"}", "\u{7}", deep.as_str()] {
        let body = body.to_owned();
        let (answers, ..) = asked(move |_| json(&body));
        let error = answers.version.result.unwrap_err().to_string();
        assert!(error.len() < 700 && !error.contains('\n'), "{error}");
    }
}
