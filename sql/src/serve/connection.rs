//! One connection: messages are read, answered in turn, and errors told.

use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use datafusion_postgres::pgwire::api::{ClientInfo, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use datafusion_postgres::pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use futures::StreamExt;
use futures::future::select;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::codec::{Framed, FramedParts};

use super::Handlers;
use super::asking::Prepared;
use super::errors::plain;

/// How long a client may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);

/// What a connection goes on for after the other side hung up: whoever only cancels does not wait.
const GRACE: Duration = Duration::from_secs(1);

/// Bytes of a message, at most.
const MESSAGE: usize = 16 << 20;

/// Answers one client until it leaves. What goes wrong with its connection is its own affair.
pub(super) async fn serve(socket: TcpStream, handlers: Arc<Handlers>) {
    let Ok((socket, watched)) = twice(socket) else { return };
    let gone = async {
        hung_up(&watched).await;
        sleep(GRACE).await;
    };
    select(pin!(answer(socket, &handlers)), pin!(gone)).await;
}

/// The same connection a second time, to be watched while a statement is at work and nobody reads.
fn twice(socket: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let socket = socket.into_std()?;
    let second = socket.try_clone()?;
    Ok((TcpStream::from_std(socket)?, TcpStream::from_std(second)?))
}

async fn hung_up(socket: &TcpStream) {
    while let Ok(ready) = socket.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // What came is for the one who answers; the next news is waited for.
        socket.try_io(Interest::READABLE, || Err::<(), _>(ErrorKind::WouldBlock.into())).ok();
    }
}

async fn answer(socket: TcpStream, handlers: &Handlers) -> io::Result<()> {
    let greeted = Instant::now() + GREETING;
    let Ok(socket) = timeout_at(greeted, negotiate_tls::<Prepared>(socket, None)).await else {
        return Ok(());
    };
    let Some(socket) = socket? else { return Ok(()) };
    let mut socket = bounded(socket);
    loop {
        socket.get_mut().left = MESSAGE;
        let message = match socket.state() {
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress => {
                timeout_at(greeted, socket.next()).await.unwrap_or(None)
            }
            _ => socket.next().await,
        };
        let message = match message {
            Some(Ok(PgWireFrontendMessage::Terminate(_))) | None => return Ok(()),
            // Nothing that follows can be understood.
            Some(Err(error)) => return process_error(&mut socket, error, false).await,
            Some(Ok(message)) => message,
        };
        let extended = message.is_extended_query();
        let answered = process_message(
            message,
            &mut socket,
            Arc::clone(&handlers.startup),
            Arc::clone(&handlers.asking),
            Arc::clone(&handlers.asking),
            Arc::new(NoopHandler),
            Arc::clone(&handlers.connections),
        );
        if let Err(error) = answered.await {
            process_error(&mut socket, plain(error), extended).await?;
        }
    }
}

type Conversation<T> = Framed<T, PgWireMessageServerCodec<Prepared>>;

fn bounded(socket: Conversation<MaybeTls>) -> Conversation<Bounded> {
    let parts = socket.into_parts();
    let mut bounded = FramedParts::new(Bounded { socket: parts.io, left: MESSAGE }, parts.codec);
    bounded.read_buf = parts.read_buf;
    bounded.write_buf = parts.write_buf;
    Framed::from_parts(bounded)
}

/// A connection from which no more is read than a message may hold: what has not ended by then is no message.
struct Bounded {
    socket: MaybeTls,
    left: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == 0 {
            let message = format!("a message of more than {MESSAGE} bytes");
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, message)));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buf);
        this.left = this.left.saturating_sub(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Bounded {
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
