//! The producer that is online: the broker asks it for half messages that nobody has ended.

use futures_lite::future;
use ringmq_protocol::record::records;

use super::super::requests;
use super::*;

/// How often it tells the broker that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long it waits before it connects anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers the broker's questions for as long as the simulation runs.
pub async fn answer_checks(env: SimEnv, home: Home) {
    let id = format!("producer-of-{}", home.broker);
    loop {
        let _ = stay_online(&env, &home, &id).await;
        env.sleep(PAUSE).await;
    }
}

async fn stay_online(env: &SimEnv, home: &Home, id: &str) -> Result<(), Lost> {
    let mut wire = Wire::connect(env, home.address).await?;
    let mut heard = env.now();
    let mut told = None;
    loop {
        if told.is_none_or(|at| env.now().since(at) >= HEARTBEAT) {
            wire.send(vec![requests::producer_heartbeat(id)]).await?;
            told = Some(env.now());
        }
        let silence = async {
            env.sleep(HEARTBEAT).await;
            Ok(None)
        };
        match future::or(async { wire.next().await.map(Some) }, silence).await? {
            Some(command) => {
                heard = env.now();
                answer(home, &mut wire, &command).await?;
            }
            // Nobody listens any more.
            None if env.now().since(heard) > PATIENCE => return Err(Lost),
            None => {}
        }
    }
}

/// Ends the transaction that a question is about as it was decided.
async fn answer(home: &Home, wire: &mut Wire, command: &Command) -> Result<(), Lost> {
    if command.is_response() || command.code != request::CHECK_TRANSACTION_STATE {
        return Ok(());
    }
    let record = records(&command.body).next().expect("a half message").expect("a record");
    let commits = home.model.borrow_mut().ends_half(Model::id(record.body));
    let (log, state) = (number(command, "commitLogOffset"), number(command, "tranStateTableOffset"));
    wire.send(vec![requests::end_transaction(log, state, commits, true)]).await
}
