//! The name servers: one is asked until it fails, then the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_protocol::body::TopicRouteData;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::GetRouteInfoHeader;
use ringmq_protocol::json;

use crate::error::CallError;
use crate::remoting::{Remoting, Request, bad_answer, refused};
use crate::sync::lock;

/// Why the route of a topic is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The client was given no name server.
    #[error("no name server is configured")]
    NoNameServer,
    /// The name server knows no such topic, or none of its brokers takes what is asked.
    #[error("no route info of this topic: {0}")]
    NoTopic(String),
    /// Every name server failed; this is what the last one did.
    #[error("no name server answers: {0}")]
    Call(#[from] CallError),
}

impl RouteError {
    /// Whether it may go better later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, RouteError::Call(error) if error.is_retryable())
    }
}

/// The list of name servers, in an order of this client's own.
#[derive(Debug)]
pub(crate) struct NameServers {
    addrs: Mutex<Arc<[Arc<str>]>>,
    current: AtomicUsize,
}

impl NameServers {
    pub(crate) fn new(addrs: &[String]) -> NameServers {
        NameServers { addrs: Mutex::new(shuffled(addrs).into()), current: AtomicUsize::new(0) }
    }

    /// Takes another list. The one that is in use stays in use if it is in it.
    pub(crate) fn replace(&self, addrs: &[String]) {
        let mut present = lock(&self.addrs);
        let same = present.len() == addrs.len() && present.iter().all(|a| addrs.iter().any(|b| **a == **b));
        if !same {
            let current = self.current.load(Ordering::Relaxed);
            let in_use = present.get(current % present.len().max(1)).cloned();
            let mut fresh = shuffled(addrs);
            if let Some(at) = in_use.and_then(|addr| fresh.iter().position(|a| *a == addr)) {
                let place = current % fresh.len();
                fresh.swap(at, place);
            }
            *present = fresh.into();
        }
    }

    pub(crate) fn all(&self) -> Arc<[Arc<str>]> {
        lock(&self.addrs).clone()
    }

    pub(crate) fn contains(&self, addr: &str) -> bool {
        self.all().iter().any(|a| **a == *addr)
    }

    /// The route of a topic.
    pub(crate) async fn route(
        &self,
        remoting: &Remoting,
        topic: &str,
        timeout: Duration,
    ) -> Result<TopicRouteData, RouteError> {
        let header = GetRouteInfoHeader { topic, accept_standard_json_only: Some(true) };
        let request = Request::new(request::GET_ROUTEINFO_BY_TOPIC, &header);
        let (addr, answer) = self.call(remoting, &request, timeout).await?;
        match answer.code {
            response::SUCCESS => {
                Ok(json::from_slice(&answer.body).map_err(|error| bad_answer(&addr, error))?)
            }
            response::TOPIC_NOT_EXIST => Err(RouteError::NoTopic(topic.to_owned())),
            _ => Err(refused(&addr, answer).into()),
        }
    }

    /// Asks one name server after the other until one answers, each within `timeout`.
    pub(crate) async fn call(
        &self,
        remoting: &Remoting,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<(Arc<str>, Command), RouteError> {
        let mut last = RouteError::NoNameServer;
        let addrs = self.all();
        for _ in 0..addrs.len() {
            let current = self.current.load(Ordering::Relaxed);
            let addr = &addrs[current % addrs.len()];
            match remoting.call(addr, request, timeout).await {
                Ok(answer) => return Ok((addr.clone(), answer)),
                Err(error) => {
                    tracing::debug!(target: "ringmq_client::route", %error, "on to the next name server");
                    // Only one of those who saw it fail moves on.
                    let next = current.wrapping_add(1);
                    let _ =
                        self.current.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed);
                    last = error.into();
                }
            }
        }
        Err(last)
    }
}

fn shuffled(addrs: &[String]) -> Vec<Arc<str>> {
    let mut addrs: Vec<Arc<str>> = addrs.iter().map(|addr| addr.as_str().into()).collect();
    fastrand::shuffle(&mut addrs);
    addrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_keeps_the_name_server_in_use() {
        let texts = |list: &[&str]| list.iter().map(|addr| (*addr).to_owned()).collect::<Vec<_>>();
        for current in 0..9 {
            let servers = NameServers::new(&texts(&["a:1", "b:1", "c:1"]));
            servers.current.store(current, Ordering::Relaxed);
            let in_use = |servers: &NameServers| {
                let all = servers.all();
                all[current % all.len()].clone()
            };
            let before = in_use(&servers);
            servers.replace(&texts(&["d:1", "c:1", "b:1", "a:1", "e:1"]));
            assert_eq!((in_use(&servers), servers.all().len()), (before, 5));
            servers.replace(&texts(&["f:1"]));
            assert_eq!(&*in_use(&servers), "f:1");
            assert!(servers.contains("f:1") && !servers.contains("a:1"));
        }
    }
}
