//! Views over one source: what each more of them costs while they share its reader, and how fast a later one catches up.

use std::time::Instant;

use anyhow::Result;
use weir_e2e::servers::Nats;
use weir_e2e::weir::Weir;
use weir_e2e::workload::Bids;

use crate::Options;
use crate::report::{Aim, Report};
use crate::standalone::{complete, follow};

/// How many views share a reader.
const COUNTS: [usize; 3] = [1, 2, 4];

/// Publishes the bids once for each number of views, which are there before.
pub(crate) async fn measure(options: &Options, nats: &Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    let (mut sql, messages) = (weir.sql(), options.messages);
    for count in COUNTS {
        println!("reading for {count} views over one source …");
        let name = format!("shared_{count}");
        let (stream, bids) = (name.to_uppercase(), Bids { prefix: name.clone() });
        nats.create_stream(&stream, &[&format!("{name}.>")]).await?;
        sql.query(&format!(
            "CREATE SOURCE {name} ({}) WITH (connector = 'nats', server_url = '{}', stream = '{stream}', \
             subject = '{name}.>', connect_mode = 'plain') FORMAT PLAIN ENCODE JSON",
            Bids::COLUMNS,
            nats.address()
        ))
        .await?;
        let views: Vec<String> = (0..count).map(|number| format!("{name}_{number}")).collect();
        for view in &views {
            sql.query(&format!("CREATE MATERIALIZED VIEW {view} AS SELECT * FROM {name}")).await?;
        }
        let cpu = follow(nats, weir, &bids, (&name, &views), messages).await?;
        report.add(&format!("{count} views over a source, CPU-seconds per million messages"), cpu, 2, Aim::None);
    }
    println!("catching up with a later view …");
    let name = format!("shared_{}", COUNTS[0]);
    let start = Instant::now();
    sql.query(&format!("CREATE MATERIALIZED VIEW later AS SELECT * FROM {name}")).await?;
    complete(&mut sql, "later", messages, start).await?;
    let rate = messages as f64 / start.elapsed().as_secs_f64() / 1_000.0;
    report.add("a later view catches up, k messages/s", rate, 0, Aim::None);
    Ok(())
}
