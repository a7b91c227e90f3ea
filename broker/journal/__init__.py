"""What a broker did, turn by turn, in files: enough to do it again and to see whether it comes out the same.

`codec` writes events and effects as text, `segment` is one file, `writer` keeps a bounded folder of them off the event
loop. Nothing here knows the dispatcher: whoever uses it says which classes there are. Payloads never come here.
"""
