//! Java's keys that real files carry and that have no effect here.
//!
//! They are known, so that an existing `broker.conf` starts: each is taken with a warning that says why it does
//! nothing. Where ignoring a value would break a promise that the key makes (access control, replication), only
//! the values that promise nothing are taken, and others are refused.

/// Why a group of keys does nothing.
struct Group {
    reason: &'static str,
    keys: &'static [&'static str],
}

/// A key whose harmless values alone are taken.
struct Guarded {
    key: &'static str,
    harmless: &'static [&'static str],
    reason: &'static str,
}

/// What a key that only Java knows comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JavaOnly {
    /// Taken, without effect, for this reason.
    NoEffect(&'static str),
    /// Refused with this value, for this reason.
    Refused(&'static str),
}

const GROUPS: &[Group] = &[
    Group {
        reason: "RingMQ runs one thread for each core and has no thread pools",
        keys: &[
            "sendMessageThreadPoolNums",
            "pullMessageThreadPoolNums",
            "litePullMessageThreadPoolNums",
            "putMessageFutureThreadPoolNums",
            "ackMessageThreadPoolNums",
            "processReplyMessageThreadPoolNums",
            "queryMessageThreadPoolNums",
            "adminBrokerThreadPoolNums",
            "clientManageThreadPoolNums",
            "consumerManageThreadPoolNums",
            "loadBalanceProcessorThreadPoolNums",
            "heartbeatThreadPoolNums",
            "recoverThreadPoolNums",
            "endTransactionThreadPoolNums",
            "sendThreadPoolQueueCapacity",
            "putThreadPoolQueueCapacity",
            "pullThreadPoolQueueCapacity",
            "litePullThreadPoolQueueCapacity",
            "ackThreadPoolQueueCapacity",
            "replyThreadPoolQueueCapacity",
            "queryThreadPoolQueueCapacity",
            "clientManagerThreadPoolQueueCapacity",
            "consumerManagerThreadPoolQueueCapacity",
            "heartbeatThreadPoolQueueCapacity",
            "endTransactionPoolQueueCapacity",
            "adminBrokerThreadPoolQueueCapacity",
            "loadBalanceThreadPoolQueueCapacity",
            "serverWorkerThreads",
            "serverCallbackExecutorThreads",
            "serverSelectorThreads",
            "clientWorkerThreads",
            "clientRequestThreadPoolNums",
            "clientRequestThreadPoolQueueCapacity",
            "defaultThreadPoolNums",
            "defaultThreadPoolQueueCapacity",
            "timerGetMessageThreadNum",
            "timerPutMessageThreadNum",
        ],
    },
    Group {
        reason: "RingMQ answers SYSTEM_BUSY from the length of its queues, at once, and needs no timers for it",
        keys: &[
            "brokerFastFailureEnable",
            "waitTimeMillsInSendQueue",
            "waitTimeMillsInPullQueue",
            "waitTimeMillsInLitePullQueue",
            "waitTimeMillsInHeartbeatQueue",
            "waitTimeMillsInTransactionQueue",
            "waitTimeMillsInAckQueue",
            "waitTimeMillsInAdminBrokerQueue",
            "osPageCacheBusyTimeOutMills",
            "serverAsyncSemaphoreValue",
            "serverOnewaySemaphoreValue",
        ],
    },
    Group {
        reason: "RingMQ has its own store: direct I/O without mapped files, under --data",
        keys: &[
            "storePathCommitLog",
            "storePathDLedgerCommitLog",
            "storePathConsumeQueue",
            "storePathIndex",
            "storeCheckpoint",
            "abortFile",
            "mappedFileSizeConsumeQueue",
            "mappedFileSizeConsumeQueueExt",
            "mappedFileSizeTimerLog",
            "commitIntervalCommitLog",
            "flushCommitLogTimed",
            "flushCommitLogLeastPages",
            "commitCommitLogLeastPages",
            "flushCommitLogThoroughInterval",
            "commitCommitLogThoroughInterval",
            "flushIntervalConsumeQueue",
            "flushConsumeQueueLeastPages",
            "flushConsumeQueueThoroughInterval",
            "flushLeastPagesWhenWarmMapedFile",
            "syncFlushTimeout",
            "transientStorePoolEnable",
            "transientStorePoolSize",
            "fastFailIfNoBufferInStorePool",
            "useReentrantLockWhenPutMessage",
            "warmMapedFileEnable",
            "accessMessageInMemoryMaxRatio",
            "messageIndexEnable",
            "messageIndexSafe",
            "maxHashSlotNum",
            "maxIndexNum",
            "enableConsumeQueueExt",
            "enableCalcFilterBitMap",
            "duplicationEnable",
            "debugLockEnable",
            "checkCRCOnRecover",
            "diskFallRecorded",
            "storeType",
            "realTimePersistRocksDBConfig",
            "memTableFlushIntervalMs",
            "rocksdbCQDoubleWriteEnable",
            "bottomMostCompressionTypeForConsumeQueueStore",
            "rocksdbCompressionType",
            "rocksdbFlushWalFrequency",
            "rocksdbWalFileRollingThreshold",
            "configManagerVersion",
            "kvConfigPath",
            "configStorePath",
            "rocketmqHome",
        ],
    },
    Group {
        reason: "whole segments are deleted one after another, and no reader is in the way",
        keys: &[
            "deleteCommitLogFilesInterval",
            "deleteConsumeQueueFilesInterval",
            "destroyMapedFileIntervalForcibly",
            "redeleteHangedFileInterval",
            "deleteFileBatchMax",
        ],
    },
    Group {
        reason: "delayed messages have no wheel of slots here: they are due to the millisecond, and come from the log",
        keys: &[
            "timerPrecisionMs",
            "timerRollWindowSlot",
            "timerFlushIntervalMs",
            "timerInterceptDelayLevel",
            "timerStopEnqueue",
            "timerStopDequeue",
            "timerCheckMetricsWhen",
        ],
    },
    Group {
        reason: "POP is not served yet",
        keys: &[
            "popPollingSize",
            "popPollingMapSize",
            "maxPopPollingSize",
            "popPollingMapExpireTimeSeconds",
            "reviveQueueNum",
            "reviveInterval",
            "reviveMaxSlow",
            "reviveScanTime",
            "reviveAckWaitMs",
            "enablePopLog",
            "enablePopBufferMerge",
            "popCkStayBufferTime",
            "popCkStayBufferTimeOut",
            "popCkMaxBufferSize",
            "popCkOffsetMaxQueueSize",
            "enablePopBatchAck",
            "popFromRetryProbability",
            "popLongPollingForceNotifyInterval",
            "serverLoadBalancerEnable",
            "defaultMessageRequestMode",
            "defaultPopShareQueueNum",
            "retrieveMessageFromPopRetryTopicV1",
            "enableRetryTopicV2",
            "initPopOffsetByCheckMsgInMem",
        ],
    },
    Group {
        reason: "there are no replicas yet, so there is nothing that it could tune",
        keys: &[
            "brokerIP2",
            "haListenPort",
            "haMasterAddress",
            "haSendHeartbeatInterval",
            "haHousekeepingInterval",
            "haTransferBatchSize",
            "haSlaveFallbehindMax",
            "slaveTimeout",
            "slaveReadEnable",
            "offsetCheckInSlave",
            "totalReplicas",
            "inSyncReplicas",
            "minInSyncReplicas",
            "allAckInSyncStateSet",
            "enableRemoteEscape",
            "dLegerGroup",
            "dLegerPeers",
            "dLegerSelfId",
            "controllerAddr",
            "controllerDLegerGroup",
            "controllerDLegerPeers",
            "controllerDLegerSelfId",
            "controllerStorePath",
            "brokerHeartbeatInterval",
            "brokerNotActiveTimeoutMillis",
            "unRegisterBrokerQueueCapacity",
            "supportActingMaster",
            "notifyMinBrokerIdChanged",
        ],
    },
    Group {
        reason: "RingMQ decides this by itself",
        keys: &[
            "maxTransferCountOnMessageInMemory",
            "maxTransferBytesOnMessageInMemory",
            "maxTransferCountOnMessageInDisk",
            "maxTransferBytesOnMessageInDisk",
            "longPollingEnable",
            "shortPollingTimeMills",
            "notifyConsumerIdsChangedEnable",
            "realTimeNotifyConsumerChange",
            "forceRegister",
            "registerBrokerTimeoutMills",
            "compressedRegister",
            "enableSplitRegistration",
            "splitRegistrationSize",
            "transferMsgByHeap",
            "useEpollNativeSelector",
            "serverPooledByteBufAllocatorEnable",
            "serverSocketSndBufSize",
            "serverSocketRcvBufSize",
            "writeBufferHighWaterMark",
            "writeBufferLowWaterMark",
            "serverSocketBacklog",
            "clientAsyncSemaphoreValue",
            "clientOnewaySemaphoreValue",
            "clientCloseSocketIfTimeout",
            "clusterTopicEnable",
            "brokerTopicEnable",
            "msgTraceTopicName",
            "commercialEnable",
            "commercialTimerCount",
            "enableDetailStat",
            "accountStatsEnable",
            "autoDeleteUnusedStats",
            "disableConsumeIfConsumerReadSlowly",
            "consumerFallbehindThreshold",
            "coldDataFlowControlEnable",
            "cgColdReadThreshold",
            "globalColdReadThreshold",
            "fetchNamesrvAddrByAddressServer",
            "fetchNameSrvAddrByDnsLookup",
            "rmqAddressServerDomain",
            "rmqAddressServerSubGroup",
            "metricsExporterType",
            "metricsPromExporterHost",
            "maxDelayTime",
            "messageStorePlugIn",
            "productEnvName",
            "clusterTest",
            "needWaitForService",
            "waitSecondsForService",
            "enableControllerInNamesrv",
            "innerClientAuthenticationCredentials",
            "initAuthenticationUser",
            "authConfigPath",
            "tls.test.mode.enable",
        ],
    },
];

const GUARDED: &[Guarded] = &[
    Guarded {
        key: "aclEnable",
        harmless: &["false"],
        reason: "access control is not built yet, and a broker that only seems to ask for passwords is worse \
                 than none",
    },
    Guarded {
        key: "authenticationEnabled",
        harmless: &["false"],
        reason: "access control is not built yet, and a broker that only seems to ask for passwords is worse \
                 than none",
    },
    Guarded {
        key: "authorizationEnabled",
        harmless: &["false"],
        reason: "access control is not built yet, and a broker that only seems to check permissions is worse \
                 than none",
    },
    Guarded { key: "tls.server.mode", harmless: &["disabled", "permissive"], reason: "TLS is not built yet" },
    Guarded {
        key: "brokerRole",
        harmless: &["ASYNC_MASTER"],
        reason: "replicas are not built yet, so a broker can be neither a slave nor wait for one",
    },
    Guarded {
        key: "enableDLegerCommitLog",
        harmless: &["false"],
        reason: "replication is not built yet, and a single copy must not pass for several",
    },
    Guarded {
        key: "enableControllerMode",
        harmless: &["false"],
        reason: "replication is not built yet, and a single copy must not pass for several",
    },
    Guarded { key: "enableSlaveActingMaster", harmless: &["false"], reason: "replicas are not built yet" },
];

/// What `key` with `value` comes to, if Java has such a key (beyond those of the option table).
pub fn lookup(key: &str, value: &str) -> Option<JavaOnly> {
    if let Some(guarded) = GUARDED.iter().find(|guarded| guarded.key == key) {
        let harmless = guarded.harmless.iter().any(|word| word.eq_ignore_ascii_case(value.trim()));
        return Some(match harmless {
            true => JavaOnly::NoEffect(guarded.reason),
            false => JavaOnly::Refused(guarded.reason),
        });
    }
    GROUPS.iter().find(|group| group.keys.contains(&key)).map(|group| JavaOnly::NoEffect(group.reason))
}

/// Every such key with its reason, for the documentation and for suggestions.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let groups = GROUPS.iter().flat_map(|group| group.keys.iter().map(|key| (*key, group.reason)));
    groups.chain(GUARDED.iter().map(|guarded| (guarded.key, guarded.reason)))
}

/// The reasons with their keys, in the order of the documentation; the second of the pair lists what is taken.
pub(crate) fn by_reason() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    GROUPS.iter().map(|group| (group.reason, group.keys))
}

/// The keys of which only harmless values are taken: key, those values, reason.
pub(crate) fn guarded() -> impl Iterator<Item = (&'static str, &'static [&'static str], &'static str)> {
    GUARDED.iter().map(|guarded| (guarded.key, guarded.harmless, guarded.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice_or_is_an_option_too() {
        let mut keys: Vec<&str> = all().map(|(key, _)| key).collect();
        keys.sort_unstable();
        let repeated: Vec<_> = keys.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(repeated.is_empty(), "{repeated:?}");
        for option in crate::OPTIONS {
            assert!(option.java.iter().all(|name| keys.binary_search(name).is_err()), "{}", option.name);
        }
    }

    #[test]
    fn what_protects_data_is_refused_rather_than_ignored() {
        assert!(matches!(lookup("aclEnable", "true"), Some(JavaOnly::Refused(_))));
        assert!(matches!(lookup("aclEnable", "FALSE"), Some(JavaOnly::NoEffect(_))));
        assert!(matches!(lookup("brokerRole", "SLAVE"), Some(JavaOnly::Refused(_))));
        assert!(matches!(lookup("sendMessageThreadPoolNums", "16"), Some(JavaOnly::NoEffect(_))));
        assert_eq!(lookup("sendMessageThreadPollNums", "16"), None);
    }
}
