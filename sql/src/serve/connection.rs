//! One connection: messages are read, answered in turn, and errors told.

use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::{ClientInfo, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use datafusion_postgres::pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use futures::StreamExt;
use futures::future::select;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::codec::{Framed, FramedParts};

use super::Handlers;
use super::asking::Prepared;
use super::errors::plain;
use super::messages::Messages;

/// How long a client may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);

/// What a connection goes on for after the other side hung up: whoever only cancels does not wait.
const GRACE: Duration = Duration::from_secs(1);

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
    let mut socket = checked(socket);
    loop {
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

fn checked(socket: Conversation<MaybeTls>) -> Conversation<Messages> {
    let parts = socket.into_parts();
    let mut checked = FramedParts::new(Messages::new(parts.io, &parts.read_buf), parts.codec);
    checked.write_buf = parts.write_buf;
    Framed::from_parts(checked)
}
