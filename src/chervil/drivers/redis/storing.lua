local P = ARGV[1]

-- Whether a result says SUCCESS, or else the mark beside it.
local function is_success(payload, side)
  local status = string.match(string.sub(payload, 1, 200), '^{"status": ?"([^"\\]*)"')
  if not status and string.byte(payload) == 123 and #payload < 1000000 then
    local fine, document = pcall(cjson.decode, payload)
    status = fine and type(document) == 'table' and document.status
  end
  if not status then
    status = string.match(redis.call('GET', side) or '', '^%d+:(.*)')
  end
  return status == 'SUCCESS'
end

-- Stores the outcomes that ARGV describes from place at on, groups of
--   task id, milliseconds to live, status mark, address of the sender, payload
-- Empty: the life of what stays for ever, the mark where the payload says its status, and
-- the address where nobody told it.
local function store(at, count, key_prefix)
  local call, sides, replies = redis.call, P .. '_chervil.status.', P .. '_chervil.reply.'
  for place = at, at + 5 * count - 5, 5 do
    local id, life, mark, address, payload = unpack(ARGV, place, place + 4)
    local key = key_prefix .. id
    local wanted
    if life == '' then
      wanted = call('SET', key, payload, 'NX')
    else
      wanted = call('SET', key, payload, 'PX', life, 'NX')
    end
    if not wanted and not is_success(call('GET', key), sides .. id) then
      wanted = true
      if life == '' then
        call('SET', key, payload)
      else
        call('SET', key, payload, 'PX', life)
      end
    end
    if wanted then
      if mark ~= '' and life == '' then
        call('SET', sides .. id, mark)
      elseif mark ~= '' then
        call('SET', sides .. id, mark, 'PX', life)
      end
      if address ~= '' then
        call('PUBLISH', replies .. address, #id .. ':' .. id .. (#payload > 65536 and '' or payload))
      end
      call('PUBLISH', key, payload)
    end
  end
  return at + 5 * count
end
