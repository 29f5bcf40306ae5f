//! What the broker says of its memory.

use bytes::BytesMut;
use futures_lite::future;
use ringmq_env::{Stream, StreamReader, StreamWriter};

use super::*;

const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n";

/// Sum of the samples of a metric, by its name.
fn sum(text: &str, metric: &str) -> f64 {
    let samples = text.lines().filter_map(|line| line.strip_prefix(metric));
    let samples = samples.filter(|rest| rest.starts_with(['{', ' ']));
    samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

impl Client {
    /// What the broker uses is within its limit.
    pub(super) async fn check_memory(&mut self) -> Result<(), Lost> {
        let (env, limit) = (self.env.clone(), self.limit);
        let late = async {
            env.sleep(limit).await;
            Err(Lost)
        };
        let text = future::or(self.metrics(), late).await?;
        let (used, limit) = (sum(&text, "ringmq_memory_bytes"), sum(&text, "ringmq_memory_limit_bytes"));
        // Cut off by a connection that broke.
        if limit > 0.0 {
            assert!(used <= limit, "the broker uses {used} bytes of {limit}");
        }
        Ok(())
    }

    async fn metrics(&self) -> Result<String, Lost> {
        let stream = self.env.connect(self.home.metrics, self.limit).await.map_err(|_| Lost)?;
        let (mut reader, mut writer) = stream.into_split();
        writer.write_all(&[std::io::IoSlice::new(REQUEST)]).await.map_err(|_| Lost)?;
        let mut text = BytesMut::new();
        loop {
            text.reserve(64 << 10);
            match reader.read(&mut text).await {
                Ok(0) => return Ok(String::from_utf8_lossy(&text).into_owned()),
                Ok(_) => {}
                Err(_) => return Err(Lost),
            }
        }
    }
}
