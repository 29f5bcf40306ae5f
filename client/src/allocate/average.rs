//! Even shares, by blocks or one by one.

use std::borrow::Cow;

use ringmq_protocol::body::MessageQueue;

use super::{AllocateError, AllocateStrategy, Members};

/// Each member gets a block of neighbouring queues, the first ones one more when the division leaves a rest. The
/// default, as in Java (`AllocateMessageQueueAveragely`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Averagely;

impl AllocateStrategy for Averagely {
    fn name(&self) -> Cow<'static, str> {
        "AVG".into()
    }

    fn allocate(&self, members: &Members<'_>) -> Result<Vec<MessageQueue>, AllocateError> {
        let Some(index) = members.position()? else { return Ok(Vec::new()) };
        let (share, rest) =
            (members.queues.len() / members.clients.len(), members.queues.len() % members.clients.len());
        let start = index * share + index.min(rest);
        let size = share + usize::from(index < rest);
        Ok(members.queues[start..start + size].to_vec())
    }
}

/// The queues go round the members one by one (`AllocateMessageQueueAveragelyByCircle`).
#[derive(Clone, Copy, Debug, Default)]
pub struct AveragelyByCircle;

impl AllocateStrategy for AveragelyByCircle {
    fn name(&self) -> Cow<'static, str> {
        "AVG_BY_CIRCLE".into()
    }

    fn allocate(&self, members: &Members<'_>) -> Result<Vec<MessageQueue>, AllocateError> {
        let Some(index) = members.position()? else { return Ok(Vec::new()) };
        Ok(members.queues.iter().skip(index).step_by(members.clients.len()).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::queues;
    use super::*;

    #[test]
    fn every_queue_has_exactly_one_owner() {
        for (queue_count, client_count) in [(0, 1), (1, 3), (7, 3), (8, 4), (100, 7)] {
            let queues = queues("b", queue_count.max(1));
            let clients: Vec<String> = (0..client_count).map(|i| format!("c{i}")).collect();
            let strategies: [&dyn AllocateStrategy; 2] = [&Averagely, &AveragelyByCircle];
            for strategy in strategies {
                let share = |client_id: &String| {
                    strategy.allocate(&Members { group: "g", client_id, queues: &queues, clients: &clients })
                };
                let mut owned: Vec<_> = clients.iter().flat_map(|c| share(c).unwrap()).collect();
                owned.sort();
                assert_eq!(owned, queues, "{}", strategy.name());
            }
        }
    }
}
