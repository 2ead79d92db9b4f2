//! How DataFusion finds a bucket, and tables that are named by their address.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{TableProvider, UrlTableFactory};
use datafusion::datasource::dynamic_file::DynamicListTableFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::ObjectStore;
use url::Url;

use super::cloud::store_of;
use super::files::{is_row_file, table_at};
use super::location::{Location, Scheme};

/// DataFusion's own registry, with the buckets of this process behind it.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    own: DefaultObjectStoreRegistry,
}

impl ObjectStoreRegistry for Registry {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.own.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.own.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.own.get_store(url).or_else(|error| match (Scheme::named(url.scheme()), url.host_str()) {
            (Some(scheme), Some(bucket)) => {
                store_of(scheme, bucket).map_err(|error| DataFusionError::External(Box::new(error)))
            }
            _ => Err(error),
        })
    }
}

/// Makes `from 'labels.csv'` and `from 's3://bucket/x.parquet'` tables. A name that neither has a slash nor ends like a
/// file of rows is no address, so that a mistyped table is not looked for among files.
#[derive(Debug, Default)]
pub(crate) struct AddressedTables(DynamicListTableFactory);

impl AddressedTables {
    /// Tells it the session whose options the tables follow.
    pub(crate) fn attach(&self, context: &SessionContext) {
        self.0.session_store().with_state(context.state_weak_ref());
    }
}

#[async_trait]
impl UrlTableFactory for AddressedTables {
    async fn try_new(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let external = |error| DataFusionError::External(Box::new(error));
        if !name.contains('/') && !is_row_file(&Location::Local(name.into())) {
            return Ok(None);
        }
        let place = Location::parse(name).map_err(external)?;
        let session = self.0.session_store().get_session().upgrade();
        let state =
            session.and_then(|session| session.read().as_any().downcast_ref::<SessionState>().cloned());
        let state = state.ok_or_else(|| DataFusionError::Internal("the session is gone".to_owned()))?;
        #[cfg(feature = "serve")]
        crate::serve::refuse_closed(&state, &place)?;
        table_at(&state, name, &place).await.map(Some).map_err(external)
    }
}
