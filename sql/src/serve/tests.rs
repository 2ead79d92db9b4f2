//! A client that speaks the protocol itself asks a server on a free port.

mod asking;
mod client;
mod hardship;
