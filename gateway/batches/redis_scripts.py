"""The steps of `RedisStore` that must happen whole or not at all, in Lua.

Keys, all with one hash tag, so that a cluster keeps them together:

==================  =========  =================================================================
``…:batch:<id>``    hash       inputs, chunks, number, submitted, begun, owner, failed, finished
``…:inputs:<id>``   hash       inputs of a chunk by its place, until it has outcomes
``…:outcomes:<id>`` hash       outcomes of a chunk by its place
``…:waiting``       zset       ids without a runner, by their number
``…:leased``        zset       ids with a runner, by the end of its lease
``…:open``          zset       ids that are not finished, by the time of their submission
``…:expiring``      zset       ids that are finished, by the time of their removal
``…:of:<bucket>``   set        ids of the bucket that are not finished
``…:counted``       hash       by id, as JSON: account, model, bucket and size, as they are counted below
``…:bytes``         string     bytes of all batches
``…:number``        string     the last number
==================  =========  =================================================================

A batch that has lost a key, by an eviction or by hand, is gone: it is neither found nor run, and what it
counted is given back. The keys that are shared by batches must not be lost.

Times are in seconds, by the clock of Redis: those of gateways may differ.
"""

from __future__ import annotations

PREFIX = "{tritonflare:batches}"

_CLOCK = f"""
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local function key(...) return table.concat({{'{PREFIX}', ...}}, ':') end
"""

_WHOLE = """
local function is_whole(id)
    local chunks = redis.call('HGET', key('batch', id), 'chunks')
    if not chunks or redis.call('HEXISTS', key('counted'), id) == 0 then return false end
    return redis.call('HLEN', key('inputs', id)) + redis.call('HLEN', key('outcomes', id)) == tonumber(chunks)
end
"""

_REMOVE = """
local function remove(id)
    local counted = redis.call('HGET', key('counted'), id)
    if counted then
        local batch = cjson.decode(counted)
        redis.call('HDEL', key('counted'), id)
        redis.call('DECRBY', key('bytes'), batch.size)
        redis.call('SREM', key('of', batch.bucket), id)
    end
    redis.call('DEL', key('batch', id), key('inputs', id), key('outcomes', id))
    for _, ids in ipairs({'waiting', 'leased', 'open', 'expiring'}) do redis.call('ZREM', key(ids), id) end
end
"""

_ROOM = """
local function has_room(bucket, size, most_batches, most_bytes)
    return redis.call('SCARD', key('of', bucket)) < tonumber(most_batches)
        and tonumber(redis.call('GET', key('bytes')) or 0) + tonumber(size) <= tonumber(most_bytes)
end
"""

CHECK_ROOM = f"""{_CLOCK}{_ROOM}
return has_room(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) and 1 or 0
"""
"""Arguments: bucket, size, and the most batches and bytes. Returns whether there is room."""

SUBMIT = f"""{_CLOCK}{_ROOM}
local id, account, bucket, model, inputs, size = unpack(ARGV, 1, 6)
if redis.call('EXISTS', key('batch', id)) == 1 then return 1 end
if not has_room(bucket, size, ARGV[7], ARGV[8]) then return 0 end
local number = redis.call('INCR', key('number'))
redis.call('HSET', key('batch', id), 'inputs', inputs, 'chunks', #ARGV - 8, 'number', number,
    'submitted', now, 'begun', 0, 'owner', '', 'failed', 0, 'finished', 0)
for place = 0, #ARGV - 9 do
    redis.call('HSET', key('inputs', id), place, ARGV[9 + place])
end
redis.call('ZADD', key('waiting'), number, id)
redis.call('ZADD', key('open'), now, id)
redis.call('SADD', key('of', bucket), id)
redis.call('HSET', key('counted'), id,
    cjson.encode({{account = account, model = model, bucket = bucket, size = size}}))
redis.call('INCRBY', key('bytes'), size)
return 1
"""
"""Arguments: id, account, bucket, model, inputs, size, the most batches and bytes, then the chunks.

Does nothing if it has run before.
"""

FIND = f"""{_CLOCK}{_WHOLE}
if not is_whole(ARGV[2]) then return false end
local counted = cjson.decode(redis.call('HGET', key('counted'), ARGV[2]))
if counted.account ~= ARGV[1] then return false end
local batch = redis.call('HMGET', key('batch', ARGV[2]), 'begun', 'finished')
if batch[2] ~= '1' then return {{counted.model, batch[1]}} end
if tonumber(redis.call('ZSCORE', key('expiring'), ARGV[2]) or 0) <= now then return false end
return {{counted.model, batch[1], redis.call('HGETALL', key('outcomes', ARGV[2]))}}
"""
"""Arguments: account, id. Returns the model, whether it was begun and, if finished, places and outcomes."""

CLAIM = f"""{_CLOCK}{_WHOLE}{_REMOVE}
local skip = {{}}
for place = 3, #ARGV do skip[ARGV[place]] = true end
local function first(ids)
    for _, id in ipairs(ids) do
        local counted = redis.call('HGET', key('counted'), id)
        local model = counted and cjson.decode(counted).model
        if not skip[model] then
            if is_whole(id) then return id, model end
            remove(id)
        end
    end
end
local most = #ARGV > 2 and -1 or 100
local id, model = first(redis.call('ZRANGEBYSCORE', key('leased'), '-inf', now, 'LIMIT', 0, most))
if not id then
    id, model = first(redis.call('ZRANGEBYSCORE', key('waiting'), '-inf', '+inf', 'LIMIT', 0, most))
end
if not id then return false end
redis.call('ZREM', key('waiting'), id)
redis.call('ZADD', key('leased'), now + ARGV[2], id)
redis.call('HSET', key('batch', id), 'owner', ARGV[1], 'begun', 1)
return {{id, model, redis.call('HKEYS', key('inputs', id))}}
"""
"""Arguments: owner, lease, models to skip. Returns id, model, and places of the chunks without outcomes."""

RENEW = f"""{_CLOCK}
if redis.call('HGET', key('batch', ARGV[1]), 'owner') ~= ARGV[2] then return 0 end
redis.call('ZADD', key('leased'), now + ARGV[3], ARGV[1])
return 1
"""
"""Arguments: id, owner, lease. Returns whether the lease is still that of the owner."""

RELEASE = f"""{_CLOCK}
if redis.call('HGET', key('batch', ARGV[1]), 'owner') ~= ARGV[2] then return 0 end
redis.call('HSET', key('batch', ARGV[1]), 'owner', '')
redis.call('ZREM', key('leased'), ARGV[1])
redis.call('ZADD', key('waiting'), redis.call('HGET', key('batch', ARGV[1]), 'number'), ARGV[1])
return 1
"""
"""Arguments: id, owner."""

SAVE = f"""{_CLOCK}
if redis.call('EXISTS', key('batch', ARGV[1])) == 0 then return 0 end
if redis.call('HDEL', key('inputs', ARGV[1]), ARGV[2]) == 0 then return 0 end
redis.call('HSET', key('outcomes', ARGV[1]), ARGV[2], ARGV[3])
redis.call('HINCRBY', key('batch', ARGV[1]), 'failed', ARGV[4])
return 1
"""
"""Arguments: id, place, outcomes, how many of them failed. Does nothing if the chunk has outcomes."""

FINISH = f"""{_CLOCK}
local id = ARGV[1]
local batch = redis.call('HMGET', key('batch', id), 'inputs', 'failed', 'submitted', 'chunks', 'finished')
if batch[5] ~= '0' or redis.call('HLEN', key('outcomes', id)) ~= tonumber(batch[4]) then return false end
local counted = redis.call('HGET', key('counted'), id)
if not counted then return false end
counted = cjson.decode(counted)
local size = tonumber(ARGV[3])
for _, outcomes in ipairs(redis.call('HVALS', key('outcomes', id))) do
    size = size + #outcomes + math.min(#outcomes, ARGV[4]) + ARGV[5]
end
redis.call('HSET', key('batch', id), 'finished', 1, 'owner', '')
redis.call('ZREM', key('leased'), id)
redis.call('ZREM', key('waiting'), id)
redis.call('ZREM', key('open'), id)
redis.call('SREM', key('of', counted.bucket), id)
redis.call('ZADD', key('expiring'), now + ARGV[2], id)
redis.call('INCRBY', key('bytes'), size - counted.size)
counted.size = size
redis.call('HSET', key('counted'), id, cjson.encode(counted))
return {{counted.model, batch[1], batch[2], tostring(now - batch[3])}}
"""
"""Arguments: id, how long to keep it, and what `kept_bytes` needs: the bytes of a batch, a page, a chunk.

Returns the model, the inputs, the failed ones and the seconds; nil if it is not finished.
"""

REMOVE_EXPIRED = f"""{_CLOCK}{_REMOVE}
local ids = redis.call('ZRANGEBYSCORE', key('expiring'), '-inf', now, 'LIMIT', 0, 100)
for _, id in ipairs(ids) do remove(id) end
return #ids
"""
"""Removes at most 100; returns how many."""

STATS = f"""{_CLOCK}
local oldest = redis.call('ZRANGE', key('open'), 0, 0, 'WITHSCORES')
return {{redis.call('ZCARD', key('waiting')), redis.call('ZCARD', key('leased')),
    tostring(oldest[2] and now - oldest[2] or 0)}}
"""
"""Returns the batches that wait, those that run, and the age of the oldest."""
