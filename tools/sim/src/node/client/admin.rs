//! Topics and groups: made, deleted, and there as long as they should.

use ringmq_protocol::body::SubscriptionGroupWrapper;

use super::super::model::{DEAD, GROUP, ORDERS, TOPICS};
use super::super::requests;
use super::*;

/// For how long a message's key is remembered, in ms: a week.
const ONCE_WINDOW: &str = "+dedupe.window=604800000";

impl Client {
    pub(super) async fn change_topics(&mut self) -> Result<(), Lost> {
        let old = self.model().topics.first().cloned().filter(|_| self.random(3) == 0);
        match old {
            Some(topic) => self.delete_topic(topic).await,
            None => self.create_topic().await,
        }
    }

    async fn create_topic(&mut self) -> Result<(), Lost> {
        let topic = format!("topic-{}", self.model().fresh());
        let answer = self.call(requests::create_topic(&topic, 2, "")).await?;
        if answer.code == response::SUCCESS {
            self.model().topics.insert(topic);
        }
        Ok(())
    }

    /// Topics are made once: another with that name never comes.
    async fn delete_topic(&mut self, topic: String) -> Result<(), Lost> {
        self.model().topics.remove(&topic);
        let command = Command::request(request::DELETE_TOPIC_IN_BROKER, 0).with_ext("topic", &topic);
        if self.call(command).await?.code == response::SUCCESS {
            self.model().deleted.insert(topic);
        }
        Ok(())
    }

    /// Asks core 0 many things in one write. Each is answered, if only to say that it is busy.
    pub(super) async fn ask_much(&mut self, count: u64) -> Result<(), Lost> {
        let question = Command::request(request::GET_TOPIC_CONFIG, 0).with_ext("topic", ORDERS);
        let questions = (0..count).map(|_| question.clone()).collect();
        for answer in self.call_all(questions).await? {
            let is_told = [response::SUCCESS, response::SYSTEM_BUSY].contains(&answer.code);
            assert!(is_told, "about a topic that is there: {answer:?}");
        }
        Ok(())
    }

    pub(super) async fn create_group(&mut self) -> Result<(), Lost> {
        let group = format!("group-{}", self.model().fresh());
        if self.call(requests::create_group(&group)).await?.code == response::SUCCESS {
            self.model().groups.insert(group);
        }
        Ok(())
    }

    /// Creates what all clients use; again until it is there.
    pub async fn prepare(&mut self) {
        for (topic, queues) in TOPICS.into_iter().filter(|(topic, _)| !topic.starts_with("%RETRY%")) {
            let attributes = if topic == super::super::model::ONCE { ONCE_WINDOW } else { "" };
            self.insist(requests::create_topic(topic, queues, attributes)).await;
        }
        self.insist(requests::create_group(GROUP)).await;
        debug_assert!(TOPICS.contains(&(ORDERS, 4)) && TOPICS.contains(&(DEAD, 1)));
    }

    async fn insist(&mut self, command: Command) {
        for _ in 0..100 {
            let answer = self.call(command.clone()).await;
            if answer.is_ok_and(|answer| answer.code == response::SUCCESS) {
                return;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        panic!("{command:?} is refused again and again");
    }

    pub(super) async fn check_names(&mut self) {
        let topics = self.model().topics.clone();
        let deleted = self.model().deleted.clone();
        for (topic, code) in topics
            .iter()
            .map(|topic| (topic, response::SUCCESS))
            .chain(deleted.iter().map(|topic| (topic, response::TOPIC_NOT_EXIST)))
        {
            let command = Command::request(request::GET_TOPIC_CONFIG, 0).with_ext("topic", topic);
            let answer = self.call(command).await.expect("an answer about a topic");
            assert_eq!(answer.code, code, "{topic}: {answer:?}");
        }
        let command = Command::request(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, 0);
        let answer = self.call(command).await.expect("an answer about groups");
        let known: SubscriptionGroupWrapper = json::from_slice(&answer.body).expect("groups");
        for group in &self.model().groups {
            assert!(known.subscription_group_table.contains_key(group), "{group} is lost");
        }
    }
}
