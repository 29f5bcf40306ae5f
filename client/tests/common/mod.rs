//! What the tests against a broker share. They run when `RINGMQ_TEST_NAMESRV` names its name server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmq_client::{Client, ClientConfig};

/// A client, if there is a broker to test against.
pub async fn client() -> Option<Client> {
    let Ok(name_servers) = std::env::var("RINGMQ_TEST_NAMESRV") else {
        eprintln!("skipped: RINGMQ_TEST_NAMESRV is not set");
        return None;
    };
    // Logs of a test that fails: RUST_LOG=ringmq_client=debug.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    Some(Client::connect(ClientConfig::new(&name_servers)).await.expect("a client"))
}

/// Whether the broker under test was said to lack a feature: `RINGMQ_TEST_LACKS` names them.
#[allow(dead_code)] // not every test file asks
pub fn lacks(feature: &str) -> bool {
    std::env::var("RINGMQ_TEST_LACKS").is_ok_and(|lacks| lacks.contains(feature))
}

/// A name that no other test has.
pub fn unique(prefix: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    format!("{prefix}_{}", now.as_nanos())
}

/// Ends a test that hangs.
pub async fn bounded<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("the test hangs")
}
