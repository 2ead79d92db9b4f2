//! Messages as they come: handed on whole, of bounded length, and only if they hold what they say. The decoder behind
//! this takes their counts and lengths on trust.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use datafusion_postgres::pgwire::tokio::server::MaybeTls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a message, at most.
const LONGEST: usize = 16 << 20;

/// The code of a request to cancel, in place of a version of the protocol.
const CANCEL: i32 = 80_877_102;

/// Bytes that are asked of the system at once.
const BLOCK: usize = 16 << 10;

/// A connection from which only whole messages are read.
pub(super) struct Messages {
    socket: MaybeTls,
    /// What was read, from the message under way on.
    read: Vec<u8>,
    /// How much of it was handed on, and how much is whole and may be.
    given: usize,
    whole: usize,
    /// The first message says who the client is, and has no letter before its length.
    greeted: bool,
}

impl Messages {
    /// Messages of `socket`, behind those of which `read` was read already.
    pub(super) fn new(socket: MaybeTls, read: &[u8]) -> Self {
        Self { socket, read: read.to_vec(), given: 0, whole: 0, greeted: false }
    }

    /// Finds the end of the first message.
    fn find(&mut self) -> io::Result<()> {
        let head = if self.greeted { 1 } else { 0 };
        let Some(length) = self.read.get(head..head + 4) else { return Ok(()) };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if !(4..=LONGEST).contains(&length) {
            return Err(wrong(format!("a message of {length} bytes; it can have from 4 to {LONGEST}")));
        }
        let Some(message) = self.read.get(..head + length) else { return Ok(()) };
        match (self.greeted, message) {
            (true, [letter, _, _, _, _, body @ ..]) if !is_complete(*letter, body) => {
                return Err(wrong(format!("a message '{}' that is not complete", letter.escape_ascii())));
            }
            (false, [_, _, _, _, body @ ..]) if !is_greeting(body) => {
                return Err(wrong("a greeting that is not complete".to_owned()));
            }
            _ => {}
        }
        (self.whole, self.greeted) = (head + length, true);
        Ok(())
    }
}

fn wrong(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

impl AsyncRead for Messages {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.given == this.whole {
            this.read.drain(..this.given);
            (this.given, this.whole) = (0, 0);
            this.find()?;
            if this.whole == 0 {
                let mut block = vec![0; BLOCK];
                let mut block = ReadBuf::new(&mut block);
                ready!(Pin::new(&mut this.socket).poll_read(cx, &mut block))?;
                if block.filled().is_empty() {
                    // The end; half a message is none.
                    return Poll::Ready(Ok(()));
                }
                this.read.extend_from_slice(block.filled());
            }
        }
        let count = (this.whole - this.given).min(buf.remaining());
        buf.put_slice(&this.read[this.given..][..count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Messages {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// Whether a message holds all the parts that its letter asks for (PostgreSQL's documentation, "Message Formats").
fn is_complete(letter: u8, body: &[u8]) -> bool {
    let mut parts = Parts(body);
    let complete = match letter {
        b'Q' | b'f' => parts.text(),
        b'P' => parts.text() && parts.text() && parts.list(|parts| parts.skip(4)),
        b'B' => {
            (parts.text() && parts.text())
                && parts.list(|parts| parts.skip(2))
                && parts.list(Parts::value)
                && parts.list(|parts| parts.skip(2))
        }
        b'C' | b'D' => parts.skip(1) && parts.text(),
        b'E' => parts.text() && parts.skip(4),
        b'H' | b'S' | b'X' | b'c' => true,
        b'd' => return true,
        // Nobody was asked for a password, and functions are called by statements.
        _ => false,
    };
    complete && parts.0.is_empty()
}

/// Whether a client says with what it wants to connect, in pairs of texts, or that it only cancels.
fn is_greeting(body: &[u8]) -> bool {
    let mut parts = Parts(body);
    let cancels = body.starts_with(&CANCEL.to_be_bytes());
    if cancels || !parts.skip(4) {
        return cancels;
    }
    while parts.0.first().is_some_and(|byte| *byte != 0) {
        if !(parts.text() && parts.text()) {
            return false;
        }
    }
    parts.0 == [0]
}

/// What is left of a message; each takes a part from it and says whether there was one.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn skip(&mut self, count: usize) -> bool {
        let rest = self.0.get(count..);
        self.0 = rest.unwrap_or_default();
        rest.is_some()
    }

    fn text(&mut self) -> bool {
        self.0.iter().position(|byte| *byte == 0).is_some_and(|end| self.skip(end + 1))
    }

    fn list(&mut self, part: impl Fn(&mut Self) -> bool) -> bool {
        let &[high, low, ..] = self.0 else { return false };
        self.skip(2) && (0..u16::from_be_bytes([high, low])).all(|_| part(self))
    }

    /// A parameter: its length, which is negative for NULL, and its bytes.
    fn value(&mut self) -> bool {
        let &[a, b, c, d, ..] = self.0 else { return false };
        let length = i32::from_be_bytes([a, b, c, d]);
        self.skip(4) && self.skip(usize::try_from(length).unwrap_or(0))
    }
}
