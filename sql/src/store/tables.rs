//! Tables in object stores: how DataFusion finds a bucket, and tables that are named by their address.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{TableProvider, UrlTableFactory};
use datafusion::datasource::dynamic_file::DynamicListTableFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::ObjectStore;
use url::Url;

use super::cloud::store_of;
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

/// Makes `from 's3://bucket/x.parquet'` a table. A name without a scheme is no address, so that a
/// mistyped table is not looked for among files.
#[derive(Debug)]
pub(crate) struct AddressedTables(pub(crate) Arc<DynamicListTableFactory>);

#[async_trait]
impl UrlTableFactory for AddressedTables {
    async fn try_new(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if !name.contains("://") {
            return Ok(None);
        }
        let external = |error| DataFusionError::External(Box::new(error));
        let place = Location::parse(name).map_err(external)?;
        let mut url = place.url()?;
        if name.ends_with('/') {
            url.push('/');
        }
        self.0.try_new(&url).await
    }
}
