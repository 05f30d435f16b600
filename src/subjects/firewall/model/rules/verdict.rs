//! What is decided about a packet.

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    /// Dropped with an answer.
    Reject,
    /// On with the next rule.
    Continue,
    Return,
    Jump(String),
    Goto(String),
    /// Handed to a program or another path: what becomes of it is not known.
    Elsewhere(&'static str),
}
