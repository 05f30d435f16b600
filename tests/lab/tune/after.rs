//! What an apply leaves to be started again: real processes, in this network and in one of their own.

use std::process::{Child, Stdio};

use super::place::Place;
use crate::support::process::eventually;

/// A process of that name for as long as it is held.
struct Program(Child);

impl Program {
    fn start(place: &Place, wrapper: &[&str]) -> Self {
        place.shell("[ -e /run/redis-server ] || cp /bin/sleep /run/redis-server");
        let mut words = wrapper.to_vec();
        words.extend(["/run/redis-server", "1000"]);
        let mut command = place.command(words[0]);
        Self(command.args(&words[1..]).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The three differ in when they were started, and in which network: only one of them can have the older bound.
#[test]
fn a_redis_that_was_started_before_is_named() {
    let place = Place::new();
    let before = Program::start(&place, &["env"]);
    let elsewhere = Program::start(&place, &["unshare", "--net"]);
    let runs = |program: &Program| {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", program.0.id())).unwrap_or_default();
        name == "redis-server\n"
    };
    eventually("both programs bear their name", std::time::Duration::from_secs(5), || {
        runs(&before) && runs(&elsewhere)
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(place.apply(&[]).code, 0);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let after = Program::start(&place, &["env"]);
    eventually("the program bears its name", std::time::Duration::from_secs(5), || runs(&after));

    let verified = place.run(&["verify", "--format", "json"]);
    let json = verified.json();
    let named: Vec<_> = json["restarts"].as_array().unwrap().iter().map(|it| it["what"].as_str().unwrap()).collect();
    // Others on this machine run Redis in networks of their own.
    assert_eq!(named, [format!("redis-server (process {})", before.0.id())], "{json:#}");
    assert_eq!((verified.code, &json["drifts"]), (1, &serde_json::json!([])), "{json:#}");
    let words = place.run(&["verify", "--color", "never", "--textfile", "/run/preflight.prom"]);
    assert!(words.stdout.starts_with("restart: redis-server (process "), "{words:?}");
    let gauges = place.shell("cat /run/preflight.prom");
    assert!(gauges.contains("preflight_restart{kind=\"needed\"} 1\n"), "{gauges}");
    drop(before);
    assert_eq!(place.run(&["verify"]).code, 0, "what was started again has it");
}
