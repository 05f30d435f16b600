//! Changing the host so that every change can be taken back.

pub mod clock;
pub mod id;
pub mod journal;
pub mod knob;
pub mod progress;
pub mod who;
