//! Records of traces as text: fields end with byte 1, records with byte 2 (Java's `TraceDataEncoder`).

use crate::producer::TransactionState;

const FIELD: char = '\u{1}';
const RECORD: char = '\u{2}';

/// A message that was sent, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub time_ms: i64,
    pub region: String,
    pub group: String,
    pub topic: String,
    pub msg_id: String,
    pub tags: String,
    pub keys: String,
    pub broker_addr: String,
    pub body_len: usize,
    pub cost_ms: i64,
    pub kind: MessageKind,
    pub offset_msg_id: String,
    pub success: bool,
}

/// Java's `MessageType`, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Normal,
    HalfOfTransaction,
    Commit,
    Delayed,
}

/// A message in a consumer's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Consumed {
    pub time_ms: i64,
    pub region: String,
    pub group: String,
    /// The same in the record before and in the one after.
    pub request_id: String,
    pub msg_id: String,
    pub retries: i32,
    pub keys: String,
}

/// What the listener made of it (Java's context code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumeOutcome {
    Success,
    /// It panicked, or took too long.
    Broken,
    Failed,
}

/// A transaction that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub sent: Sent,
    pub transaction_id: String,
    pub state: TransactionState,
}

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Pub(Sent),
    SubBefore(Consumed),
    SubAfter { consumed: Consumed, cost_ms: i64, outcome: ConsumeOutcome },
    EndTransaction(Ended),
}

impl Record {
    /// As it travels.
    pub(super) fn encode(&self) -> String {
        let fields = match self {
            Record::Pub(sent) => sent.fields(),
            Record::SubBefore(consumed) => consumed.before(),
            Record::SubAfter { consumed, cost_ms, outcome } => consumed.after(*cost_ms, *outcome),
            Record::EndTransaction(ended) => ended.fields(),
        };
        let mut text = fields.join(&FIELD.to_string());
        text.push(RECORD);
        text
    }

    /// What it is found by.
    pub(super) fn keys(&self) -> Vec<String> {
        let (msg_id, keys) = match self {
            Record::Pub(sent) | Record::EndTransaction(Ended { sent, .. }) => (&sent.msg_id, &sent.keys),
            Record::SubBefore(consumed) | Record::SubAfter { consumed, .. } => {
                (&consumed.msg_id, &consumed.keys)
            }
        };
        let keys = keys.split(' ').filter(|key| !key.is_empty()).map(str::to_owned);
        std::iter::once(msg_id.clone()).chain(keys).collect()
    }
}

impl Sent {
    fn fields(&self) -> Vec<String> {
        vec![
            "Pub".to_owned(),
            self.time_ms.to_string(),
            self.region.clone(),
            self.group.clone(),
            self.topic.clone(),
            self.msg_id.clone(),
            self.tags.clone(),
            self.keys.clone(),
            self.broker_addr.clone(),
            self.body_len.to_string(),
            self.cost_ms.to_string(),
            (self.kind as i32).to_string(),
            self.offset_msg_id.clone(),
            self.success.to_string(),
        ]
    }
}

impl Consumed {
    fn before(&self) -> Vec<String> {
        vec![
            "SubBefore".to_owned(),
            self.time_ms.to_string(),
            self.region.clone(),
            self.group.clone(),
            self.request_id.clone(),
            self.msg_id.clone(),
            self.retries.to_string(),
            self.keys.clone(),
        ]
    }

    fn after(&self, cost_ms: i64, outcome: ConsumeOutcome) -> Vec<String> {
        let code = match outcome {
            ConsumeOutcome::Success => 0,
            ConsumeOutcome::Broken => 2,
            ConsumeOutcome::Failed => 4,
        };
        vec![
            "SubAfter".to_owned(),
            self.request_id.clone(),
            self.msg_id.clone(),
            cost_ms.to_string(),
            (outcome == ConsumeOutcome::Success).to_string(),
            self.keys.clone(),
            code.to_string(),
            (self.time_ms + cost_ms).to_string(),
            self.group.clone(),
        ]
    }
}

impl Ended {
    fn fields(&self) -> Vec<String> {
        let sent = &self.sent;
        vec![
            "EndTransaction".to_owned(),
            sent.time_ms.to_string(),
            sent.region.clone(),
            sent.group.clone(),
            sent.topic.clone(),
            sent.msg_id.clone(),
            sent.tags.clone(),
            sent.keys.clone(),
            sent.broker_addr.clone(),
            (sent.kind as i32).to_string(),
            self.transaction_id.clone(),
            self.state.name().to_owned(),
            "false".to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumed() -> Consumed {
        Consumed {
            time_ms: 5,
            region: "r".into(),
            group: "g".into(),
            request_id: "R".into(),
            msg_id: "M".into(),
            retries: 1,
            keys: "k1 k2".into(),
        }
    }

    #[test]
    fn records_as_java_writes_them() {
        let sent = Sent {
            time_ms: 5,
            region: "r".into(),
            group: "g".into(),
            topic: "t".into(),
            msg_id: "M".into(),
            tags: "a".into(),
            keys: "k".into(),
            broker_addr: "b:1".into(),
            body_len: 3,
            cost_ms: 2,
            kind: MessageKind::Delayed,
            offset_msg_id: "O".into(),
            success: true,
        };
        let text = |record: Record| record.encode().replace(FIELD, "|").replace(RECORD, "!");
        assert_eq!(text(Record::Pub(sent.clone())), "Pub|5|r|g|t|M|a|k|b:1|3|2|3|O|true!");
        assert_eq!(text(Record::SubBefore(consumed())), "SubBefore|5|r|g|R|M|1|k1 k2!");
        let outcome = ConsumeOutcome::Failed;
        let after = Record::SubAfter { consumed: consumed(), cost_ms: 4, outcome };
        assert_eq!(text(after.clone()), "SubAfter|R|M|4|false|k1 k2|4|9|g!");
        assert_eq!(after.keys(), ["M", "k1", "k2"]);
        let sent = Sent { kind: MessageKind::Commit, ..sent };
        let ended = Ended { sent, transaction_id: "T".into(), state: TransactionState::Commit };
        let text = text(Record::EndTransaction(ended));
        assert_eq!(text, "EndTransaction|5|r|g|t|M|a|k|b:1|2|T|COMMIT_MESSAGE|false!");
    }
}
