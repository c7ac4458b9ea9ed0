//! temp
use crate::cluster::Cluster;
#[tokio::test(flavor = "multi_thread")]
async fn hand() {
    if std::env::var("HAND").is_err() {
        return;
    }
    let cluster = Cluster::start().await;
    crate::types::add_types(&cluster.shared);
    crate::statements::add_events(&cluster.shared, 1_000_000);
    std::fs::write("/tmp/fe-port", cluster.sql.port().to_string()).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1500)).await;
}
