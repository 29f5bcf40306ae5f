//! What the machine allows.

use std::time::Duration;

use crate::compare::{Context, Section};
use crate::limits::{Probe, crc32, memory_copy};

const MIB: f64 = (1 << 20) as f64;
const TIME: Duration = Duration::from_secs(3);

pub fn limits(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let probe = Probe::new(&context.dir("probe")?)?;
    let mut rates = Vec::new();
    for block in [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20] {
        rates.push(probe.sync_writes(block, TIME)?);
    }
    for block in [128 << 10, 1 << 20] {
        rates.push(probe.reads(block, TIME)?);
    }
    let mut table: Vec<Vec<String>> = rates
        .into_iter()
        .map(|rate| {
            let each = rate.bytes_per_second / rate.block as f64;
            vec![
                rate.what,
                format!("{} KiB", rate.block >> 10),
                format!("{:.0}", rate.bytes_per_second / MIB),
                format!("{each:.0}"),
            ]
        })
        .collect();
    for (what, rate) in
        [("memory copy, one core, 64 MiB", memory_copy()), ("CRC32, one core, 1 KiB", crc32())]
    {
        table.push(vec![what.into(), "–".into(), format!("{:.0}", rate / MIB), "–".into()]);
    }
    section.table("Limits of the machine", &["what", "block", "MiB/s", "requests/s"], table);
    "3 s each, once, in the order of the table".clone_into(&mut section.how);
    Ok(())
}
