//! Statements at work. Each has threads of its own: what computes does not yield, so on shared threads a light statement
//! would wait for heavy ones, while the system shares the cores between threads.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion_postgres::arrow_pg::encode_recordbatch;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::data::DataRow;
use datafusion_postgres::pgwire::messages::startup::SecretKey;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::future::{Either, select};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::errors::{CANCELLED, Explain, FULL, INTERNAL, failed};

/// Stack of a thread, in bytes: statements are trees, and reading, planning and dropping them go down their depth. The
/// system gives a thread what it uses of it.
pub(super) const STACK: usize = 64 << 20;

/// Answers of one connection that may be begun and not read to their end: each has threads.
const OPEN: usize = 8;

/// Chunks of rows that may wait for a client, and rows in one.
const AHEAD: usize = 4;
const CHUNK: usize = 256;

/// The connections there are, so that one can cancel what another waits for.
#[derive(Default)]
pub(super) struct Connections(Mutex<HashMap<i32, (SecretKey, watch::Sender<()>)>>);

/// A connection that can be cancelled as long as this lives.
struct Connection {
    all: Arc<Connections>,
    number: i32,
    cancels: watch::Sender<()>,
    open: Arc<Semaphore>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[async_trait]
impl CancelHandler for Connections {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cancels)) = all.get(&request.pid).filter(|(key, _)| key.eq_value(&request.secret_key))
        {
            cancels.send_replace(());
        }
    }
}

/// Until when a client waits for its statement.
#[derive(Clone)]
pub(super) struct Patience {
    cancelled: watch::Receiver<()>,
    deadline: Option<Instant>,
    open: Arc<Semaphore>,
}

impl Patience {
    /// From now until the client cancels or the statement takes longer than its `statement_timeout`.
    pub(super) fn of<C: ClientInfo + ?Sized>(client: &C, all: &Arc<Connections>) -> Self {
        let connection = client.session_extensions().get_or_insert_with(|| {
            let (number, key) = client.pid_and_secret_key();
            let cancels = watch::Sender::new(());
            let mut connections = all.0.lock().unwrap_or_else(PoisonError::into_inner);
            connections.insert(number, (key, cancels.clone()));
            Connection { all: Arc::clone(all), number, cancels, open: Arc::new(Semaphore::new(OPEN)) }
        });
        // The name under which the crate keeps the setting.
        let limit = client.metadata().get("statement_timeout_ms").and_then(|limit| limit.parse().ok());
        let deadline = limit.and_then(|limit| Instant::now().checked_add(Duration::from_millis(limit)));
        Self { cancelled: connection.cancels.subscribe(), deadline, open: Arc::clone(&connection.open) }
    }

    async fn wait<T>(&mut self, work: impl Future<Output = T>) -> PgWireResult<T> {
        let done = async {
            match select(pin!(work), pin!(self.cancelled.changed())).await {
                Either::Left((done, _)) => Ok(done),
                Either::Right(_) => Err(failed(CANCELLED, "the statement was cancelled")),
            }
        };
        match self.deadline {
            None => done.await,
            Some(deadline) => timeout_at(deadline, done).await.unwrap_or_else(|_| {
                Err(failed(CANCELLED, "the statement took longer than statement_timeout allows"))
            }),
        }
    }
}

/// Threads for one statement; dropped, they do not go on.
struct Threads(Option<Runtime>);

impl Threads {
    fn spawn<T: Send + 'static>(
        work: impl Future<Output = T> + Send + 'static,
    ) -> PgWireResult<(Self, JoinHandle<T>)> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.thread_name("loev-statement").enable_time().thread_stack_size(STACK).build()?;
        let task = runtime.spawn(work);
        Ok((Self(Some(runtime)), task))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a panic in the engine is told as.
fn panicked<E>(_: E) -> PgWireError {
    failed(INTERNAL, "the query panicked; please report it")
}

/// Does something with a statement while the client waits for it.
pub(super) async fn run<T: Send + 'static>(
    patience: &mut Patience,
    work: impl Future<Output = T> + Send + 'static,
) -> PgWireResult<T> {
    let (_threads, task) = Threads::spawn(work)?;
    patience.wait(task).await?.map_err(panicked)
}

/// The rows of a plan, which is run when the first of them is asked for.
///
/// # Errors
/// If a column is of a type that PostgreSQL has nothing for.
pub(super) fn rows(
    frame: DataFrame,
    format: &Format,
    options: FormatOptions,
    patience: Patience,
    explain: Explain,
) -> PgWireResult<QueryResponse> {
    let schema = frame.schema().as_arrow();
    let fields = Arc::new(arrow_schema_to_pg_fields(schema, format, Some(Arc::new(options)))?);
    let columns = Arc::clone(&fields);
    let begun = stream::once(async move { Rows::start(frame, columns, patience, explain) });
    Ok(QueryResponse::new(fields, begun.map_ok(Rows::stream).try_flatten()))
}

type Chunk = PgWireResult<Vec<DataRow>>;

/// The rows of a statement at work; dropping them stops it.
struct Rows {
    chunks: Receiver<Chunk>,
    task: JoinHandle<()>,
    patience: Patience,
    _threads: Threads,
    _open: OwnedSemaphorePermit,
}

impl Rows {
    fn start(
        frame: DataFrame,
        columns: Arc<Vec<FieldInfo>>,
        patience: Patience,
        explain: Explain,
    ) -> PgWireResult<Self> {
        let open = Arc::clone(&patience.open).try_acquire_owned().map_err(|_| {
            failed(FULL, format!("{OPEN} answers of this connection are not read to their end; close one"))
        })?;
        let (sender, chunks) = channel(AHEAD);
        let (threads, task) = Threads::spawn(send(frame, columns, explain, sender))?;
        Ok(Self { chunks, task, patience, _threads: threads, _open: open })
    }

    fn stream(self) -> impl futures::Stream<Item = PgWireResult<DataRow>> {
        let chunks = stream::unfold(Some(self), |rows| async {
            let mut rows = rows?;
            match rows.next().await.transpose()? {
                Ok(chunk) => Some((Ok(stream::iter(chunk.into_iter().map(Ok))), Some(rows))),
                Err(error) => Some((Err(error), None)),
            }
        });
        chunks.try_flatten()
    }

    async fn next(&mut self) -> PgWireResult<Option<Vec<DataRow>>> {
        match self.patience.wait(self.chunks.recv()).await? {
            Some(chunk) => chunk.map(Some),
            None => (&mut self.task).await.map(|()| None).map_err(panicked),
        }
    }
}

async fn send(frame: DataFrame, columns: Arc<Vec<FieldInfo>>, explain: Explain, sender: Sender<Chunk>) {
    let mut batches = match Box::pin(started(frame)).await {
        Ok(batches) => batches,
        Err(error) => return drop(sender.send(Err(explain.engine(error))).await),
    };
    while let Some(batch) = batches.next().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return drop(sender.send(Err(explain.engine(error))).await),
        };
        let mut rows = encode_recordbatch(Arc::clone(&columns), batch).peekable();
        while rows.peek().is_some() {
            let chunk: Chunk = rows.by_ref().take(CHUNK).collect();
            let last = chunk.is_err();
            // Nobody listens any more once the statement was stopped.
            if sender.send(chunk).await.is_err() || last {
                return;
            }
        }
    }
}

/// Runs a plan whose joins yield: what makes many rows of few would go on for long after it was stopped.
async fn started(frame: DataFrame) -> Result<SendableRecordBatchStream, DataFusionError> {
    let task = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    let plan = plan.transform_up(|node| {
        Ok(match node.children().len() {
            0 | 1 => Transformed::no(node),
            _ => Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>),
        })
    })?;
    execute_stream(plan.data, task)
}
