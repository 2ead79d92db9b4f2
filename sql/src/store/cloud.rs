//! The stores themselves: one per bucket, made from the environment when it is first needed.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3};
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Gcs};
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::location::{Location, Scheme};
use super::runtime;
use crate::error::{SqlError, StoreFault};

/// A request that failed for a passing reason is made again for this long.
const RETRY: Duration = Duration::from_secs(50);
/// Where a machine in a cloud asks for its own credentials, and how long it waits for an answer.
const METADATA: &str = "169.254.169.254:80";
const METADATA_WAIT: Duration = Duration::from_secs(1);

type Bucket = (Scheme, String);

static STORES: RwLock<BTreeMap<Bucket, Arc<dyn ObjectStore>>> = RwLock::new(BTreeMap::new());

/// Puts a store behind a bucket, `s3://bucket` or `gs://bucket`, for the whole process.
///
/// # Errors
/// [`SqlError::Store`] if `prefix` is no bucket.
pub fn register(prefix: &str, store: Arc<dyn ObjectStore>) -> Result<(), SqlError> {
    match Location::parse(prefix)? {
        Location::Object { scheme, bucket, key } if key.is_empty() => {
            STORES.write().unwrap_or_else(PoisonError::into_inner).insert((scheme, bucket), store);
            Ok(())
        }
        _ => Err(SqlError::store(prefix, StoreFault::Address, "a store is registered for a whole bucket")),
    }
}

/// The store of a bucket.
pub(crate) fn store_of(scheme: Scheme, bucket: &str) -> Result<Arc<dyn ObjectStore>, SqlError> {
    let known = (scheme, bucket.to_owned());
    if let Some(store) = STORES.read().unwrap_or_else(PoisonError::into_inner).get(&known) {
        return Ok(Arc::clone(store));
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let store = from_environment(scheme, bucket, &environment.collect())?;
    let mut stores = STORES.write().unwrap_or_else(PoisonError::into_inner);
    Ok(Arc::clone(stores.entry(known).or_insert(store)))
}

/// Makes a store as the cloud's own tools would, from the variables that they read.
fn from_environment(
    scheme: Scheme,
    bucket: &str,
    variables: &BTreeMap<String, String>,
) -> Result<Arc<dyn ObjectStore>, SqlError> {
    let place = format!("{scheme}://{bucket}");
    let refused = |error: object_store::Error| {
        SqlError::store(&place, StoreFault::Denied, super::reason(&error) + ". " + what_to_set(scheme))
    };
    let connector = SpawnedReqwestConnector::new(runtime()?.clone());
    let given = |prefix: &'static str| {
        variables.iter().filter(move |(name, _)| name.starts_with(prefix)).map(|(n, v)| (n.to_lowercase(), v))
    };
    let on = |value: Option<String>| value.is_some_and(|value| matches!(value.as_str(), "true" | "1"));
    Ok(match scheme {
        Scheme::S3 => {
            let mut builder = AmazonS3Builder::new().with_http_connector(connector).with_retry(retry());
            for (name, value) in given("AWS_") {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            let keys = [
                S3::AccessKeyId,
                S3::SecretAccessKey,
                S3::WebIdentityTokenFile,
                S3::ContainerCredentialsRelativeUri,
                S3::ContainerCredentialsFullUri,
                S3::MetadataEndpoint,
            ];
            let has_key = keys.iter().any(|key| builder.get_config_value(key).is_some())
                || on(builder.get_config_value(&S3::SkipSignature));
            let asks = !on(variables.get("AWS_EC2_METADATA_DISABLED").cloned());
            if !(has_key || asks && in_a_cloud()) {
                return Err(no_credentials(scheme, &place));
            }
            Arc::new(builder.with_bucket_name(bucket).build().map_err(refused)?)
        }
        Scheme::Gs => {
            let mut builder =
                GoogleCloudStorageBuilder::new().with_http_connector(connector).with_retry(retry());
            for (name, value) in given("GOOGLE_") {
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            let keys = [Gcs::ServiceAccount, Gcs::ServiceAccountKey, Gcs::ApplicationCredentials];
            let login = variables
                .get("HOME")
                .map(|home| PathBuf::from(home).join(".config/gcloud/application_default_credentials.json"));
            let has_key = keys.iter().any(|key| builder.get_config_value(key).is_some())
                || on(builder.get_config_value(&Gcs::SkipSignature))
                || login.is_some_and(|file| file.is_file());
            if !(has_key || in_a_cloud()) {
                return Err(no_credentials(scheme, &place));
            }
            Arc::new(builder.with_bucket_name(bucket).build().map_err(refused)?)
        }
    })
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(8),
        // Each pause is drawn between the first one and this many times the last: 1.5 times on average.
        base: 3.0,
    };
    // The time is the bound: pauses that happen to be short must not use up the tries.
    RetryConfig { backoff, max_retries: 100, retry_timeout: RETRY }
}

/// Whether this machine can ask its cloud for credentials. Without this question, a missing key would
/// be found out after a minute of requests that nobody answers.
fn in_a_cloud() -> bool {
    let address: Result<SocketAddr, _> = METADATA.parse();
    address.is_ok_and(|address| TcpStream::connect_timeout(&address, METADATA_WAIT).is_ok())
}

fn no_credentials(scheme: Scheme, place: &str) -> SqlError {
    let reason = format!("no credentials in the environment. {}", what_to_set(scheme));
    SqlError::store(place, StoreFault::Denied, reason)
}

/// What gives access to a bucket.
pub(super) fn what_to_set(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN if they are temporary) and \
             AWS_REGION, AWS_ENDPOINT for a store that is not Amazon's, or AWS_SKIP_SIGNATURE=true for a public \
             bucket; `aws configure export-credentials --format env` prints those of a profile"
        }
        Scheme::Gs => {
            "Run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS to a key file, or \
             GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::store::entry_of;

    #[test]
    fn missing_credentials_are_told_at_once() {
        let message = |scheme, variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            from_environment(scheme, "music", &variables).map(|_| ()).map_err(|error| error.to_string())
        };
        let off = ("AWS_EC2_METADATA_DISABLED", "true");
        let error = message(Scheme::S3, &[off]).unwrap_err();
        for part in ["s3://music", "no credentials", "AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"] {
            assert!(error.contains(part), "{error}");
        }
        let error = message(Scheme::S3, &[("AWS_ACCESS_KEY_ID", "half")]).unwrap_err();
        assert!(error.contains("SecretAccessKey") && error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
        assert_eq!(message(Scheme::S3, &[off, ("AWS_SKIP_SIGNATURE", "true")]), Ok(()));
        assert_eq!(
            message(Scheme::S3, &[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]),
            Ok(())
        );
        assert_eq!(message(Scheme::Gs, &[("GOOGLE_SKIP_SIGNATURE", "true")]), Ok(()));
        let error = message(Scheme::Gs, &[("GOOGLE_SERVICE_ACCOUNT", "/none.json")]).unwrap_err();
        assert!(error.contains("gs://music") && error.contains("GOOGLE_APPLICATION_CREDENTIALS"), "{error}");
        if !in_a_cloud() {
            let error = message(Scheme::Gs, &[]).unwrap_err();
            assert!(error.contains("no credentials") && error.contains("gcloud auth"), "{error}");
        }
    }

    /// A server that is too busy for the first two requests of each object.
    fn busy_server() -> SocketAddr {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || {
            for (number, connection) in server.incoming().enumerate() {
                let mut connection = connection.unwrap();
                let mut request = [0; 4096];
                let _ = connection.read(&mut request).unwrap();
                let reply = match number % 3 {
                    2 => {
                        "200 OK\r\nContent-Length: 7\r\nETag: \"x\"\r\nLast-Modified: Mon, 05 Jan 2026 10:00:00 GMT"
                    }
                    _ => "503 Slow Down\r\nContent-Length: 0",
                };
                write!(connection, "HTTP/1.1 {reply}\r\nConnection: close\r\n\r\n").unwrap();
            }
        });
        address
    }

    #[test]
    fn a_busy_server_is_asked_again() {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "a".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ENDPOINT", format!("http://{}", busy_server())),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        register("s3://busy", from_environment(Scheme::S3, "busy", &variables).unwrap()).unwrap();
        let entry = entry_of(&Location::parse("s3://busy/a").unwrap()).unwrap();
        assert_eq!((entry.bytes, entry.stamp.as_str()), (7, "\"x\""));
    }

    #[test]
    fn only_buckets_are_registered() {
        let store = || Arc::new(object_store::memory::InMemory::new());
        assert!(register("s3://a/b", store()).is_err());
        assert!(register("/a", store()).is_err());
    }
}
