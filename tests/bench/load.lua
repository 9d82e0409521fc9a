-- What wrk sends: GET with the eleven headers of a browser, three of which vary by request.
-- Arguments: close (a connection for each), size=N (a POST of N bytes instead), headers=N (so many in all).
local n, size, close, headers = 0, nil, "", 11
local before, between, after

function init(args)
   for _, arg in ipairs(args) do
      if arg == "close" then close = "Connection: close\r\n" end
      size = size or tonumber(arg:match("^size=(%d+)$"))
      headers = tonumber(arg:match("^headers=(%d+)$")) or headers
   end
   local lines = {
      "Host: shop.example:8000",
      "X-Request-ID: ",
      "Cookie: theme=dark; session=",
      "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
      "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
      "Accept-Language: en-GB,en;q=0.5",
      "Accept-Encoding: gzip, deflate, br",
      "Upgrade-Insecure-Requests: 1",
      "Sec-Fetch-Dest: document",
      "Sec-Fetch-Mode: navigate",
   }
   for extra = #lines + 2, headers do lines[extra - 1] = "X-Part-" .. extra .. ": of what a proxy adds" end
   local rest = table.concat(lines, "\r\n", 4, headers - 1) .. "\r\n" .. close
   before = lines[1] .. "\r\n" .. lines[2]
   between = "\r\n" .. lines[3]
   after = "\r\n" .. rest .. "Referer: http://shop.example:8000/items/"
   if size then body = "\r\nContent-Length: " .. size .. "\r\n\r\n" .. string.rep("x", size) end
end

function request()
   n = n + 1
   local target = (size and "POST" or "GET") .. " /items/" .. n % 997 .. "?page=" .. n % 31 .. " HTTP/1.1\r\n"
   local id = string.format("%016x", n * 7919)
   return target .. before .. id .. between .. id .. after .. n % 499 .. (body or "\r\n\r\n")
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format('\n{"requests": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "errors": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
