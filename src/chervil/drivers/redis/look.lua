-- Whether something is ready; and the server tells of the next change (see exchange.lua).
--
-- KEYS: the lists, then the delayed sets. ARGV: number of lists.
-- Answers {lists that are not empty, time of the next delayed one or ''}.
local lists = tonumber(ARGV[1])
local answer = { redis.call('EXISTS', unpack(KEYS, 1, lists)), '' }
for place = lists + 1, #KEYS do
  local due = redis.call('ZRANGE', KEYS[place], 0, 0, 'WITHSCORES')[2]
  if due and (answer[2] == '' or tonumber(due) < tonumber(answer[2])) then
    answer[2] = due
  end
end
return answer
