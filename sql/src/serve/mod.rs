//! A session for clients of PostgreSQL: psql, drivers, tools that draw figures.
//!
//! ```text
//! TcpListener ──► connection ──► asking ──────► work ──────────────────► rows, through a channel
//!                 (pgwire)       our planner,   each statement on        with a bound
//!                                reads only     threads of its own
//! ```
//!
//! Connections have threads of their own, which never compute: however heavy statements are, others connect, are
//! answered and cancel. There are no passwords and no encryption. What a client can do is bounded instead: statements
//! only read, settings hold for the client's own connection, and no statement names a file, so that what was opened is
//! all there is to see.

mod asking;
mod connection;
mod errors;
mod messages;
mod settings;
#[cfg(test)]
mod tests;
mod work;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::auth::noop::NoopStartupHandler;
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::diagnose;
use crate::error::{SqlError, StoreFault};
use crate::functions::audio;
use crate::store::Location;
use asking::Asking;
use work::Connections;

/// Clients at a time; more are told to come back.
const CLIENTS: usize = 64;

/// Threads that carry what connections say.
const CARRIERS: usize = 2;

/// How long to wait when a connection cannot be taken: too many open files, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers clients of PostgreSQL from one session.
pub struct Server {
    handlers: Arc<Handlers>,
    database: String,
}

/// What a connection is answered by.
struct Handlers {
    asking: Arc<Asking>,
    startup: Arc<Startup>,
    connections: Arc<Connections>,
}

impl Server {
    /// Makes a session fit for clients. From then on it has the tables of `pg_catalog`, reads no file by its address
    /// (what was opened stays open), and lacks the functions that take recordings.
    ///
    /// # Errors
    /// [`SqlError::Engine`] if the session cannot be extended.
    pub fn new(context: &SessionContext) -> Result<Self, SqlError> {
        let database = context.copied_config().options().catalog.default_catalog.clone();
        setup_pg_catalog(context, &database, EmptyContextProvider)
            .map_err(|error| diagnose::engine(*error))?;
        context.state_ref().write().config_mut().set_extension(Arc::new(Closed));
        for function in audio::all() {
            context.deregister_udf(function.name());
        }
        context.register_udf(version());
        let connections = Arc::new(Connections::default());
        let handlers = Handlers {
            asking: Arc::new(Asking::new(context, &connections)),
            startup: Arc::new(Startup(Arc::new(Semaphore::new(CLIENTS)))),
            connections,
        };
        Ok(Self { handlers: Arc::new(handlers), database })
    }

    /// The name of the one database there is. Clients may give any.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Answers on threads of its own, at most 64 clients at a time, until what is returned is dropped. Statements then
    /// still at work are not waited for.
    ///
    /// # Errors
    /// The system's, if there can be no threads or the listener cannot be waited for.
    pub fn listen(&self, listener: std::net::TcpListener) -> io::Result<Listening> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(CARRIERS).thread_stack_size(work::STACK);
        let runtime = runtime.thread_name("loev-serve").enable_all().build()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, Arc::clone(&self.handlers)));
        Ok(Listening(Some(runtime)))
    }
}

async fn accept(listener: TcpListener, handlers: Arc<Handlers>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, _)) => drop(connections.spawn(connection::serve(socket, Arc::clone(&handlers)))),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A server at work; dropped, it ends all connections.
pub struct Listening(Option<Runtime>);

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets everybody in, as long as there is room.
struct Startup(Arc<Semaphore>);

#[async_trait]
impl NoopStartupHandler for Startup {
    async fn post_startup<C>(&self, client: &mut C, _: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match Arc::clone(&self.0).try_acquire_owned() {
            // Kept as long as the connection.
            Ok(place) => drop(client.session_extensions().insert(place)),
            Err(_) => return Err(errors::too_many(CLIENTS)),
        }
        Ok(())
    }
}

/// What drivers read from a server before anything else: which PostgreSQL it is like. It is the one that pgwire names
/// when a client connects.
fn version() -> ScalarUDF {
    let version = concat!("PostgreSQL 16.6 (loev ", env!("CARGO_PKG_VERSION"), ")");
    let told = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(version)));
    create_udf("version", Vec::new(), DataType::Utf8, Volatility::Stable, Arc::new(told))
}

/// In the configuration of a session whose statements may not name files.
struct Closed;

/// Refuses an address where files are closed.
pub(crate) fn refuse_closed(state: &SessionState, place: &Location) -> Result<(), DataFusionError> {
    if state.config().get_extension::<Closed>().is_none() {
        return Ok(());
    }
    let reason =
        "a server reads no file that a statement names; open it with the server: loev sql FILE --serve";
    Err(DataFusionError::External(Box::new(SqlError::store(place, StoreFault::Denied, reason))))
}
