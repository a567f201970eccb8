//! Builds the provider's client from address, environment and options.
//!
//! Always: the environment first, options over it, and over both what safety fixes: conditional puts on, retries
//! limited, the wrapped connection of `http`. Credentials go from here into the client and nowhere else.

use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ClientOptions};

use super::super::options::StoreOptions;
use super::super::{KeyPrefix, StoreError};
use super::http::{self, Connector};
use super::{CloudStore, retries};

/// Options that would undo what the address or safety fixes.
const FIXED: &[&str] = &["bucket", "bucket_name", "container_name", "conditional_put", "copy_if_not_exists"];

fn settings(what: impl Into<String>) -> StoreError {
    StoreError::Settings { what: what.into() }
}

/// The provider's name of an option.
fn known<K: FromStr>(name: &str, scheme: &str) -> Result<K, StoreError> {
    let bare = ["aws_", "azure_", "google_"].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    if FIXED.contains(&bare) {
        return Err(settings(format!("the option {name:?} is fixed: the address or safety decides it")));
    }
    name.parse().map_err(|_| settings(format!("no option of {scheme} stores goes by {name:?}")))
}

/// Deadlines of a connection. The whole request has its own, by its size, in `CloudStore`.
fn client(options: &StoreOptions) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(options.timeout.min(std::time::Duration::from_secs(10)))
        .with_read_timeout(options.timeout)
        .with_timeout_disabled()
        .with_user_agent(object_store::HeaderValue::from_static(concat!(
            "farshore/",
            env!("CARGO_PKG_VERSION")
        )))
}

/// Texts of a failed build are the library's and name options; values could follow, so only the kind is kept.
fn built<T>(result: object_store::Result<T>, scheme: &str) -> Result<T, StoreError> {
    result.map_err(|error| match http::meaning(&error) {
        http::Meaning::Settings(what) => settings(what),
        _ => settings(format!(
            "the {scheme} client refuses its options; is a credential, account or region missing?"
        )),
    })
}

fn flag(options: &StoreOptions, name: &str) -> Result<Option<bool>, StoreError> {
    let value = options.values.get(name).map(String::as_str);
    value
        .map(|text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(settings(format!("the option {name:?} is true or false"))),
        })
        .transpose()
}

/// A bucket of S3 or of whoever speaks its protocol.
pub(in super::super) fn s3(
    bucket: &str,
    prefix: KeyPrefix,
    options: &StoreOptions,
) -> Result<CloudStore, StoreError> {
    let base = AmazonS3Builder::new().with_client_options(client(options));
    // Over TLS this is for the store's sake: buckets with object lock take no put without a checksum.
    // Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html>.
    let mut builder = base.with_checksum_algorithm(Checksum::SHA256);
    if options.from_environment {
        for (name, value) in environment("AWS_") {
            if let Ok(key) = known::<AmazonS3ConfigKey>(&name, "S3") {
                builder = builder.with_config(key, value);
            }
        }
    }
    for (name, value) in &options.values {
        builder = builder.with_config(known(name, "S3")?, value);
    }
    let builder = builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // One request for one object: a batch reports its failures in a success.
        .with_disable_bulk_delete(true)
        .with_retry(retries())
        .with_http_connector(Connector::default());
    let inner = Arc::new(built(builder.build(), "S3")?);
    // Directory buckets list in no order. Source:
    // <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>.
    let ordered = !bucket.ends_with("--x-s3");
    Ok(CloudStore {
        inner,
        place: format!("s3://{bucket}/{}", shown(&prefix)),
        prefix,
        ordered,
        timeout: options.timeout,
    })
}

/// A container of Azure Blob Storage.
pub(in super::super) fn azure(
    account: Option<&str>,
    container: &str,
    prefix: KeyPrefix,
    options: &StoreOptions,
) -> Result<CloudStore, StoreError> {
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(client(options));
    if options.from_environment {
        for (name, value) in environment("AZURE_") {
            if let Ok(key) = known::<AzureConfigKey>(&name, "Azure") {
                builder = builder.with_config(key, value);
            }
        }
    }
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    let emulator = flag(options, "emulator")?;
    if let Some(emulator) = emulator {
        builder = builder.with_use_emulator(emulator);
    }
    for (name, value) in options.values.iter().filter(|(name, _)| *name != "emulator") {
        builder = builder.with_config(known(name, "Azure")?, value);
    }
    let builder = builder
        .with_container_name(container)
        .with_retry(retries())
        .with_http_connector(Connector::default());
    let inner = Arc::new(built(builder.build(), "Azure")?);
    let place = format!("az://{container}/{}", shown(&prefix));
    Ok(CloudStore { inner, place, prefix, ordered: true, timeout: options.timeout })
}

/// A bucket of Google Cloud Storage.
pub(in super::super) fn google(
    bucket: &str,
    prefix: KeyPrefix,
    options: &StoreOptions,
) -> Result<CloudStore, StoreError> {
    let mut builder = GoogleCloudStorageBuilder::new().with_client_options(client(options));
    if options.from_environment {
        for (name, value) in environment("GOOGLE_") {
            if let Ok(key) = known::<GoogleConfigKey>(&name, "Google") {
                builder = builder.with_config(key, value);
            }
        }
    }
    for (name, value) in &options.values {
        let key = match name.as_str() {
            "endpoint" => GoogleConfigKey::BaseUrl,
            "allow_http" => GoogleConfigKey::Client(ClientConfigKey::AllowHttp),
            name => known(name, "Google")?,
        };
        builder = builder.with_config(key, value);
    }
    let builder =
        builder.with_bucket_name(bucket).with_retry(retries()).with_http_connector(Connector::default());
    let inner = Arc::new(built(builder.build(), "Google")?);
    let place = format!("gs://{bucket}/{}", shown(&prefix));
    Ok(CloudStore { inner, place, prefix, ordered: true, timeout: options.timeout })
}

fn shown(prefix: &KeyPrefix) -> &str {
    prefix.folder().unwrap_or_default()
}

/// The environment's options of a provider, lower-cased. Other programs' variables begin so too: unknown ones are none
/// of our business.
fn environment(prefix: &'static str) -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(move |(name, value)| {
        let (name, value) = (name.to_str()?, value.to_str()?);
        name.starts_with(prefix).then(|| (name.to_ascii_lowercase(), value.to_owned()))
    })
}
