//! One command of the transaction engine as a process of its own: what the apply tests start, kill and trace.

#![allow(
    clippy::disallowed_methods,
    clippy::exit,
    clippy::unwrap_used,
    dead_code,
    reason = "it shares the host of the tests, of which it needs a part"
)]

mod host;

use std::path::PathBuf;
use std::time::Duration;

use host::{DROP_IN, Lab, SOMAXCONN, at_once, code, with_env};
use preflight::apply::signals::Interrupt;
use preflight::apply::timer::watch;
use preflight::apply::{ApplyError, Connection, Options, Outcome, Selection, apply, confirm, rollback};
use preflight::exit::ExitCode;

fn main() {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let root = PathBuf::from(var("PREFLIGHT_LAB_ROOT"));
    assert!(root.is_absolute(), "this is started by the other tests");
    let lab = Lab::at(root.clone());
    let number = |name: &str| var(name).parse::<u64>().unwrap_or_default();
    let interrupt = Interrupt::install().unwrap();
    let exit = with_env(&root, Some(interrupt), |env| {
        let one = |result: Result<Outcome, ApplyError>| match result {
            Ok(outcome) => outcome.exit(),
            Err(error) => error.exit(),
        };
        match var("PREFLIGHT_LAB_VERB").as_str() {
            verb if verb.starts_with("apply") => {
                let mut plan = lab.plan();
                plan.changes.retain(|change| match verb {
                    "apply-live" => change.target == SOMAXCONN,
                    "apply-file" => change.target == DROP_IN,
                    _ => true,
                });
                one(apply(&plan, &at_once(), env))
            }
            verb @ ("wait" | "no-wait") => {
                let window = Duration::from_millis(number("PREFLIGHT_LAB_WINDOW_MS"));
                let options = Options { confirm_within: Some(window), wait: verb == "wait", ..at_once() };
                one(apply(&lab.plan(), &options, env))
            }
            "confirm" => one(confirm(env, None, Connection::Any)),
            "rollback" => match rollback(env, &Selection::Newest) {
                Ok(mut outcomes) => outcomes.pop().map_or(ExitCode::Success, |outcome| outcome.exit()),
                Err(error) => error.exit(),
            },
            "watch" => {
                let tx = var("PREFLIGHT_LAB_TX").parse().unwrap();
                let deadline = Duration::from_micros(number("PREFLIGHT_LAB_DEADLINE_US"));
                assert!(env.clock.boottime() < deadline);
                watch(env, &tx, deadline).map_or_else(|error| error.exit(), |_| ExitCode::Success)
            }
            verb => panic!("no driver for `{verb}`"),
        }
    });
    std::process::exit(code(exit));
}
