//! What is carried along while packets are followed.

use super::Question;
use super::flow::Flow;
use super::order::Ties;
use super::trace::Trace;

pub(super) struct Walk<'a> {
    pub(super) question: &'a Question<'a>,
    pub(super) ties: Ties,
    pub(super) trace: Trace,
    pub(super) rules: usize,
}

impl Walk<'_> {
    pub(super) fn stop(&mut self, flow: Flow, by: &str) {
        if flow.region.is_empty() {
            return;
        }
        match self.trace.stopped.iter_mut().find(|(_, known)| known == by) {
            Some((region, _)) => region.add(flow.region),
            None => self.trace.stopped.push((flow.region, by.to_owned())),
        }
    }

    pub(super) fn doubt(&mut self, what: String) {
        const SHOWN: usize = 8;
        if self.trace.doubts.len() < SHOWN && !self.trace.doubts.contains(&what) {
            self.trace.doubts.push(what);
        }
    }
}
