//! What is carried along while packets are followed.

use super::Question;
use super::flow::Flow;
use super::order::Ties;
use super::trace::Passage;

pub(super) struct Walk<'a> {
    pub(super) question: &'a Question<'a>,
    pub(super) ties: Ties,
    pub(super) passage: Passage,
    pub(super) rules: usize,
}

impl Walk<'_> {
    pub(super) fn stop(&mut self, flow: Flow, by: &str) {
        if flow.region.is_empty() {
            return;
        }
        match self.passage.stopped.iter_mut().find(|(_, known)| known == by) {
            Some((region, _)) => region.add(flow.region),
            None => self.passage.stopped.push((flow.region, by.to_owned())),
        }
    }

    pub(super) fn doubt(&mut self, what: String) {
        const SHOWN: usize = 8;
        if self.passage.doubts.len() < SHOWN && !self.passage.doubts.contains(&what) {
            self.passage.doubts.push(what);
        }
    }
}
