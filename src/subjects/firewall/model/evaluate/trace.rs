//! What became of the packets of one question.

use super::super::packet::Destination;
use super::super::region::Region;

/// What became of the packets.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// May get through.
    pub passed: Region,
    /// May be stopped, and by what.
    pub stopped: Vec<(Region, String)>,
    /// What let some of them through last: a rule or a policy.
    pub passed_by: Option<String>,
    /// Some went on to another address.
    pub forwarded: bool,
    /// Some were delivered to the host itself.
    pub delivered: bool,
    /// Where those ended that may get through.
    pub arrived: Vec<Arrival>,
    /// What could not be determined.
    pub doubts: Vec<String>,
}

/// Packets that may get through, and where to.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub region: Region,
    pub destination: Destination,
    /// `None` when it is not known.
    pub port: Option<u16>,
    /// The rule that rewrote them, or may have done so.
    pub rewritten_by: Option<String>,
}

impl Trace {
    /// Those that certainly get through.
    pub fn certain(&self) -> Region {
        self.stopped.iter().fold(self.passed.clone(), |left, (region, _)| left.subtract(region))
    }

    /// Where a rule looks at what is not known of a packet, the rule itself is the reason.
    pub(super) fn name_doubts(&mut self) {
        if self.doubts.is_empty() {
            let may_pass = |region: &Region| self.passed.clone().subtract(region) != self.passed;
            let names = self.stopped.iter().filter(|(region, _)| may_pass(region)).map(|(_, by)| by.clone());
            self.doubts = names.take(2).collect();
        }
    }
}
