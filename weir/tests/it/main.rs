//! The program itself: what it says, and how it ends.

mod command;
mod standalone;
