//! The planner: pure, from wishes to changes, conflicts and manual steps. It never lowers a value that is as good as the
//! target or better, and it never plans what is already so.

use super::{firewall, kernel, limits, ports};
use crate::catalog::lint::Tuning;
use crate::change::Plan;
use crate::change::owner;
use crate::change::planner::{PlanContext, Planner};
use crate::judge::wish::Wish;

pub use crate::subjects::firewall::plan::{ALLOW_PEERS, ALLOW_SSHD, Asked};
pub use crate::subjects::limits::plan::ALLOW_DAEMON_JSON;

/// Whether an id can stand behind `--allow` at all. A file that decides now may be gone when the plan is made again, so
/// any path does.
pub fn is_allowable(id: &str) -> bool {
    matches!(id, ALLOW_DAEMON_JSON | owner::TUNED | ALLOW_PEERS | ALLOW_SSHD) || owner::is_file_owner(id)
}

/// What `preflight tune` can do about a fact: the answer that the lint of a catalogue asks for.
pub fn tuning(fact: &str) -> Tuning {
    match Tunable::of(fact) {
        Some(_) => Tuning::Possible,
        None => kernel::plan::never(fact).map_or(Tuning::Unknown, Tuning::Never),
    }
}

/// Plans what the wishes need.
pub fn plan(wishes: &[Wish], context: &PlanContext<'_>, asked: &Asked<'_>) -> Plan {
    let mut planner = Planner::new(context);
    for wish in wishes {
        if let Some(tunable) = Tunable::of(&wish.fact) {
            tunable.plan(&mut planner, wish, asked);
        }
    }
    planner.finish()
}

/// What `preflight tune` can set, by the subject that sets it.
enum Tunable<'a> {
    Kernel(kernel::plan::Tunable<'a>),
    Limits(limits::plan::Tunable<'a>),
    Ports(ports::plan::Tunable),
    Firewall(firewall::plan::Tunable),
}

impl<'a> Tunable<'a> {
    fn of(fact: &'a str) -> Option<Self> {
        kernel::plan::Tunable::of(fact)
            .map(Self::Kernel)
            .or_else(|| limits::plan::Tunable::of(fact).map(Self::Limits))
            .or_else(|| ports::plan::Tunable::of(fact).map(Self::Ports))
            .or_else(|| firewall::plan::Tunable::of(fact).map(Self::Firewall))
    }

    fn plan(self, planner: &mut Planner<'_>, wish: &Wish, asked: &Asked<'_>) {
        match self {
            Self::Kernel(tunable) => tunable.plan(planner, wish),
            Self::Limits(tunable) => tunable.plan(planner, wish),
            Self::Ports(tunable) => tunable.plan(planner, wish),
            Self::Firewall(tunable) => tunable.plan(planner, wish, asked),
        }
    }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
